// The runner with a stand-in for the engine: threads, ends, callbacks that misbehave. Also run
// under ThreadSanitizer.
#include "hadal/runtime/engine_runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "support/random.h"

namespace hadal::runtime {
namespace {

using namespace std::chrono_literals;

// What a stand-in is told to do, and what it saw. Its requests get max_new_tokens tokens, one each
// per step.
struct Script {
  std::atomic<uint32_t> fail_step{0};  // that many steps from now; 0: never
  std::atomic<bool> throw_in_step{false};
  Status failure;
  std::atomic<uint64_t> adds = 0, steps = 0, cancels = 0;
  std::set<std::thread::id> threads;  // that called; to be read when the runner has ended
  std::atomic<bool> hold{false};      // steps wait while it is set
};

class StubSource : public StepSource {
 public:
  explicit StubSource(Script& script) : script_(script) {}
  Status check(const EngineRequest& request) const override {
    if (request.prompt.empty()) return {Errc::kInvalidArgument, "stub: no prompt"};
    return {};
  }
  Result<RequestId> add(const EngineRequest& request) override {
    script_.threads.insert(std::this_thread::get_id());
    ++script_.adds;
    if (request.prompt[0] == 99) return Status(Errc::kOutOfDeviceMemory, "stub: too large");
    left_[last_ += 7] = request.max_new_tokens;  // ids unlike the runner's
    return last_;
  }
  void cancel(RequestId request) override { script_.cancels += left_.erase(request); }
  Result<std::vector<EngineToken>> step() override {
    script_.threads.insert(std::this_thread::get_id());
    while (script_.hold) std::this_thread::sleep_for(1ms);
    ++script_.steps;
    if (script_.throw_in_step) throw std::runtime_error("stub threw");
    if (script_.fail_step && --script_.fail_step == 0) return script_.failure;
    std::vector<EngineToken> tokens;
    for (auto it = left_.begin(); it != left_.end();) {
      EngineToken token{it->first, it->second};
      if (--it->second == 0) token.finish = FinishReason::kLength;
      tokens.push_back(token);
      it = token.finish == FinishReason::kNone ? std::next(it) : left_.erase(it);
    }
    return tokens;
  }
  EngineStats stats() const override {
    EngineStats stats;
    stats.steps = script_.steps;
    return stats;
  }

 private:
  Script& script_;
  std::map<RequestId, uint32_t> left_;
  RequestId last_ = 0;
};

std::unique_ptr<EngineRunner> runner_of(Script& script) {
  auto runner = EngineRunner::create(std::make_unique<StubSource>(script));
  EXPECT_TRUE(runner.ok());
  return std::move(runner).value();
}

EngineRequest request(uint32_t tokens) {
  EngineRequest r;
  r.prompt = {1}, r.max_new_tokens = tokens;
  return r;
}

// What one request's callback got.
class Inbox {
 public:
  EngineRunner::OnToken callback() {
    return [this](const EngineToken& token) {
      const std::scoped_lock lock(mutex_);
      EXPECT_EQ(ends_, 0u) << "an entry behind the end";
      tokens_ += token.has_token;
      request_ = token.request;
      if (token.finish == FinishReason::kNone) return;
      ++ends_, last_ = token;
      done_.set_value();
    };
  }
  // Waits for the end.
  EngineToken last() {
    EXPECT_EQ(done_.get_future().wait_for(30s), std::future_status::ready);
    const std::scoped_lock lock(mutex_);
    return last_;
  }
  uint32_t tokens() {
    const std::scoped_lock lock(mutex_);
    return tokens_;
  }

 private:
  std::mutex mutex_;
  std::promise<void> done_;
  uint32_t tokens_ = 0, ends_ = 0;
  RequestId request_ = 0;
  EngineToken last_;
};

TEST(EngineRunnerHost, TokensReachTheirCallbacks) {
  Script script;
  Inbox a, b;
  {
    auto runner = runner_of(script);
    const auto first = runner->add(request(5), a.callback());
    const auto second = runner->add(request(3), b.callback());
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_NE(*first, *second);
    const EngineToken end = a.last();
    EXPECT_EQ(end.request, *first);
    EXPECT_EQ(end.finish, FinishReason::kLength);
    EXPECT_EQ(b.last().request, *second);
    EXPECT_EQ(a.tokens(), 5u);
    EXPECT_EQ(b.tokens(), 3u);
  }
  EXPECT_EQ(script.threads.size(), 1u);
  EXPECT_FALSE(script.threads.count(std::this_thread::get_id()));
}

TEST(EngineRunnerHost, SleepsWhileThereIsNothingToDo) {
  Script script;
  auto runner = runner_of(script);
  Inbox inbox;
  ASSERT_TRUE(runner->add(request(4), inbox.callback()).ok());
  (void)inbox.last();
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(script.steps, 4u);
  Inbox later;
  ASSERT_TRUE(runner->add(request(2), later.callback()).ok());  // and wakes up
  EXPECT_EQ(later.last().finish, FinishReason::kLength);
  runner->stop(EngineRunner::Stop::kDrain);
  EXPECT_EQ(runner->stats().steps, 6u);
}

TEST(EngineRunnerHost, RefusesAtOnceOrByItsEnd) {
  Script script;
  auto runner = runner_of(script);
  Inbox inbox;
  EXPECT_EQ(runner->add({}, inbox.callback()).status().message(), "stub: no prompt");
  EXPECT_EQ(runner->add(request(1), {}).status().message(),
            "engine_runner: on_token must be set, got none");
  EngineRequest large = request(1);
  large.prompt = {99};
  ASSERT_TRUE(runner->add(large, inbox.callback()).ok());
  const EngineToken end = inbox.last();
  EXPECT_EQ(end.finish, FinishReason::kFailed);
  EXPECT_FALSE(end.has_token);
  EXPECT_EQ(end.status.message(), "stub: too large");
}

TEST(EngineRunnerHost, CancelEndsARequestOnce) {
  Script script;
  auto runner = runner_of(script);
  Inbox inbox;
  const auto id = runner->add(request(1u << 30), inbox.callback());
  while (inbox.tokens() < 3) std::this_thread::yield();
  runner->cancel(*id);
  const EngineToken end = inbox.last();
  EXPECT_EQ(end.request, *id);
  EXPECT_EQ(end.finish, FinishReason::kFailed);
  EXPECT_EQ(end.status.code(), Errc::kCancelled);
  runner->cancel(*id);
  runner->cancel(12345);
  runner->stop(EngineRunner::Stop::kDrain);
  EXPECT_EQ(script.cancels, 1u);
}

TEST(EngineRunnerHost, StopDrainsOrEndsNow) {
  for (const auto how : {EngineRunner::Stop::kDrain, EngineRunner::Stop::kNow}) {
    const bool drain = how == EngineRunner::Stop::kDrain;
    Script script;
    script.hold = true;
    auto runner = runner_of(script);
    Inbox running, waiting;
    ASSERT_TRUE(runner->add(request(drain ? 50 : 1u << 30), running.callback()).ok());
    while (script.adds == 0) std::this_thread::sleep_for(1ms);
    ASSERT_TRUE(runner->add(request(2), waiting.callback()).ok());  // behind the step that holds
    std::thread stopper([&] { runner->stop(how); });
    // The step goes on once the runner knows that it is stopped.
    while (runner->add(request(1), [](const auto&) {}).ok()) std::this_thread::sleep_for(1ms);
    script.hold = false;
    stopper.join();
    const auto expected = drain ? FinishReason::kLength : FinishReason::kFailed;
    EXPECT_EQ(running.last().finish, expected);
    EXPECT_EQ(waiting.last().finish, expected);
    Inbox late;
    EXPECT_EQ(runner->add(request(1), late.callback()).status().message(),
              "engine_runner: it was stopped");
    runner->stop(EngineRunner::Stop::kNow);  // again is nothing
  }
}

TEST(EngineRunnerHost, TheDestructorEndsWhatIsLeft) {
  Script script;
  Inbox inbox;
  {
    auto runner = runner_of(script);
    ASSERT_TRUE(runner->add(request(1u << 30), inbox.callback()).ok());
  }
  EXPECT_EQ(inbox.last().status.code(), Errc::kCancelled);
}

TEST(EngineRunnerHost, ACallbackThatThrowsEndsItsRequestOnly) {
  Script script;
  auto runner = runner_of(script);
  Inbox other;
  ASSERT_TRUE(runner->add(request(200), other.callback()).ok());
  for (const bool exception : {true, false}) {
    std::promise<EngineToken> ended;
    uint32_t calls = 0;
    const auto callback = [&](const EngineToken& token) {
      ++calls;
      if (token.finish != FinishReason::kNone) ended.set_value(token);
      if (calls < 3) return;
      if (exception) throw std::runtime_error("no more");
      throw 5;  // the end throws, too
    };
    ASSERT_TRUE(runner->add(request(100), callback).ok());
    auto future = ended.get_future();
    ASSERT_EQ(future.wait_for(30s), std::future_status::ready);
    const EngineToken end = future.get();
    EXPECT_EQ(end.finish, FinishReason::kFailed);
    EXPECT_EQ(end.status.code(), Errc::kInvalidArgument);
    EXPECT_EQ(end.status.message(),
              exception ? "engine_runner: on_token must not throw, got no more"
                        : "engine_runner: on_token must not throw, got no std::exception");
    // Both callbacks live until the runner is done with them.
    Inbox behind;
    ASSERT_TRUE(runner->add(request(1), behind.callback()).ok());
    (void)behind.last();
    EXPECT_EQ(calls, 4u);
  }
  EXPECT_EQ(other.last().finish, FinishReason::kLength);
  EXPECT_EQ(other.tokens(), 200u);
  EXPECT_EQ(script.cancels, 2u);
}

TEST(EngineRunnerHost, CallbacksMayCallTheRunner) {
  Script script;
  auto runner = runner_of(script);
  Inbox second, third;
  const auto id = runner->add(request(1u << 30), third.callback());
  const auto callback = [&](const EngineToken& token) {
    if (token.finish == FinishReason::kNone) return;
    EXPECT_TRUE(runner->add(request(2), second.callback()).ok());
    runner->cancel(*id);
    (void)runner->stats();
    runner->stop(EngineRunner::Stop::kDrain);  // does not wait for itself
  };
  ASSERT_TRUE(runner->add(request(3), callback).ok());
  EXPECT_EQ(second.last().finish, FinishReason::kLength);
  EXPECT_EQ(third.last().status.code(), Errc::kCancelled);
  runner->stop(EngineRunner::Stop::kDrain);
}

// A step that fails as a whole, or throws: everybody hears of it, nobody is let in any more.
TEST(EngineRunnerHost, ABrokenEngineEndsEverything) {
  for (const bool throws : {false, true}) {
    Script script;
    script.failure = {Errc::kDeviceLost, "stub: lost"};
    auto runner = runner_of(script);
    Inbox a, b;
    ASSERT_TRUE(runner->add(request(1u << 30), a.callback()).ok());
    ASSERT_TRUE(runner->add(request(1u << 30), b.callback()).ok());
    while (b.tokens() == 0) std::this_thread::yield();
    if (throws) {
      script.throw_in_step = true;
    } else {
      script.fail_step = 1;
    }
    const std::string message =
        throws ? "engine_runner: a step must not throw, got stub threw" : "stub: lost";
    EXPECT_EQ(a.last().status.message(), message);
    EXPECT_EQ(b.last().status.message(), message);
    Inbox late;
    EXPECT_EQ(runner->add(request(1), late.callback()).status().message(), message);
    runner->stop(EngineRunner::Stop::kDrain);
  }
}

// 8 threads add and cancel at random; every request that was let in ends once.
TEST(EngineRunnerHost, ManyThreads) {
  Script script;
  std::atomic<uint64_t> added = 0, ended = 0, cancelled = 0, tokens = 0;
  {
    auto runner = runner_of(script);
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        test::Random random(t);
        for (int i = 0; i < 300; ++i) {
          auto ends = std::make_shared<std::atomic<uint32_t>>(0);
          const auto id = runner->add(request(1 + random.below(20)), [&, ends](const auto& token) {
            ++tokens;
            if (token.finish == FinishReason::kNone) return;
            EXPECT_EQ(++*ends, 1u);
            ++ended;
            cancelled += token.status.code() == Errc::kCancelled;
          });
          ASSERT_TRUE(id.ok());
          ++added;
          if (random.below(3) == 0) runner->cancel(*id);
          if (random.below(8) == 0) (void)runner->stats();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    runner->stop(EngineRunner::Stop::kDrain);
  }
  EXPECT_EQ(added, 2400u);
  EXPECT_EQ(ended, 2400u);
  EXPECT_GT(cancelled, 100u);
  EXPECT_EQ(script.threads.size(), 1u);
}

}  // namespace
}  // namespace hadal::runtime
