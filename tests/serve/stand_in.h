// A server on a socket over a stand-in for the engine, which does what a test tells it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "serve/server.h"

namespace hadal::serve {

using runtime::EngineRequest, runtime::EngineToken, runtime::FinishReason;

// Requests get the token 300 with the text "x" at each step, until max_new_tokens; or, while there
// are answers, the next one's texts and a stop.
struct Script {
  std::atomic<bool> hold{false};     // steps give nothing
  std::atomic<uint32_t> fail_at{0};  // the token of each request that fails; 0: none
  std::atomic<Errc> failure{Errc::kOutOfDeviceMemory};
  std::atomic<uint32_t> added{0}, cancelled{0}, most_at_once{0}, delay_us{0};
  std::mutex mutex;
  std::vector<EngineRequest> requests;  // as they came
  std::deque<std::vector<std::string>> answers;
};

class StandIn : public runtime::StepSource {
 public:
  explicit StandIn(Script& script) : script_(script) {}
  Status check(const EngineRequest& request) const override {
    if (request.priority == 99) return {Errc::kInvalidArgument, "engine: no such priority"};
    return {};
  }
  Result<runtime::RequestId> add(const EngineRequest& request) override {
    const std::scoped_lock lock(script_.mutex);
    script_.requests.push_back(request);
    live_[++last_] = {request.max_new_tokens, 0, request.deadline, {}};
    if (!script_.answers.empty()) {
      live_[last_].texts = std::move(script_.answers.front());
      script_.answers.pop_front();
    }
    ++script_.added;
    script_.most_at_once = std::max<uint32_t>(script_.most_at_once, uint32_t(live_.size()));
    return last_;
  }
  void cancel(runtime::RequestId id) override { script_.cancelled += uint32_t(live_.erase(id)); }
  Result<std::vector<EngineToken>> step() override {
    std::this_thread::sleep_for(
        std::chrono::microseconds(script_.hold ? 1000 : script_.delay_us.load()));
    std::vector<EngineToken> tokens;
    for (auto it = live_.begin(); it != live_.end();) {
      Live& live = it->second;
      EngineToken token;
      token.request = it->first, token.id = 300, token.text = "x";
      if (live.deadline && *live.deadline < std::chrono::steady_clock::now()) {
        token.has_token = false, token.text.clear(), token.finish = FinishReason::kDeadline;
      } else if (script_.hold) {
        ++it;
        continue;
      } else if (++live.given >= script_.fail_at && script_.fail_at != 0) {
        token.has_token = false, token.text.clear(), token.finish = FinishReason::kFailed;
        token.status = {script_.failure, "engine: told to fail"};
      } else if (live.given == live.most) {
        token.finish = FinishReason::kLength;
      } else if (live.given == live.texts.size()) {
        token.finish = FinishReason::kStop;
      }
      if (token.has_token && !live.texts.empty()) token.text = live.texts[live.given - 1];
      it = token.finish == FinishReason::kNone ? std::next(it) : live_.erase(it);
      tokens.push_back(std::move(token));
    }
    return tokens;
  }
  runtime::EngineStats stats() const override {
    runtime::EngineStats stats;
    stats.pages.used = uint32_t(live_.size());  // a page each
    return stats;
  }

 private:
  struct Live {
    uint32_t most = 0, given = 0;
    std::optional<std::chrono::steady_clock::time_point> deadline;
    std::vector<std::string> texts;
  };
  Script& script_;
  std::map<runtime::RequestId, Live> live_;
  runtime::RequestId last_ = 0;
};

inline const ServedModel& model_without_template() {
  static const ServedModel served = [] {
    auto tokenizer = model::Tokenizer::load(HADAL_SOURCE_DIR "/examples/models/fables");
    EXPECT_TRUE(tokenizer.ok());
    ServedModel::Options options;
    options.name = "m", options.context = 4096, options.vocab = 2048, options.end_ids = {1};
    return ServedModel(std::move(*tokenizer), {}, options);
  }();
  return served;
}

class Running {
 public:
  explicit Running(ServerOptions options = {},
                   const ServedModel& model = model_without_template()) {
    auto runner = runtime::EngineRunner::create(std::make_unique<StandIn>(script));
    EXPECT_TRUE(runner.ok());
    runner_ = std::move(*runner);
    options.port = 0;
    options.log = [this](std::string_view line) { log += std::string(line) + "\n"; };
    auto server = Server::create(model, *runner_, std::move(options));
    EXPECT_TRUE(server.ok()) << server.status().message();
    server_ = std::move(*server);
    port = server_->port();
    thread_ = std::thread([this] { server_->run(/*signals=*/false); });
  }
  ~Running() { end(); }
  void stop() { server_->stop(); }
  void end() {
    if (!thread_.joinable()) return;
    stop();
    thread_.join();
  }
  Script script;
  uint16_t port = 0;
  std::string log;  // to be read behind end()

 private:
  std::unique_ptr<runtime::EngineRunner> runner_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

}  // namespace hadal::serve
