#include "hadal/runtime/engine_runner.h"

#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>

namespace hadal::runtime {
namespace {

class EngineSource : public StepSource {
 public:
  explicit EngineSource(Engine& engine) : engine_(engine) {}
  Status check(const EngineRequest& request) const override { return engine_.check(request); }
  Result<RequestId> add(const EngineRequest& request) override { return engine_.add(request); }
  void cancel(RequestId request) override { engine_.cancel(request); }
  Result<std::vector<EngineToken>> step() override { return engine_.step(); }
  EngineStats stats() const override { return engine_.stats(); }

 private:
  Engine& engine_;
};

// Ok, or what a call threw that must not.
template <class F>
Status guarded(const char* what, F&& call) {
  const char* rule = "engine_runner: {} must not throw, got {}";
  try {
    call();
    return {};
  } catch (const std::exception& e) {
    return {Errc::kInvalidArgument, fmt::format(fmt::runtime(rule), what, e.what())};
  } catch (...) {
    return {Errc::kInvalidArgument, fmt::format(fmt::runtime(rule), what, "no std::exception")};
  }
}

Status cancelled() {
  return {Errc::kCancelled, "engine_runner: the request was cancelled"};
}

}  // namespace

struct EngineRunner::Impl {
  // An add, or without `on_token` a cancel.
  struct Command {
    RequestId id = 0;
    EngineRequest request;
    OnToken on_token;
  };
  struct Live {
    RequestId in_source = 0;
    OnToken on_token;
  };

  // The runner's thread alone.
  std::unique_ptr<StepSource> source;
  std::unordered_map<RequestId, Live> live;            // by the runner's id
  std::unordered_map<RequestId, RequestId> runner_id;  // by the source's

  std::mutex mutex;  // of what follows
  std::condition_variable work, ended;
  std::deque<Command> commands;
  std::optional<Stop> stopping;
  Status refusal;  // not ok: nothing can be added any more
  RequestId last_id = 0;
  EngineStats stats;
  bool finished = false;

  std::thread thread;

  void run();
  void execute(Command command, bool now);
  void step();
  void deliver(EngineToken token);
  void end(Live request, RequestId id, const Status& status);
  void end_all(const Status& status);
  void refuse(const Status& status);
};

// Until it is told to stop and nothing is left.
void EngineRunner::Impl::run() {
  while (true) {
    std::deque<Command> taken;
    bool now = false;
    {
      std::unique_lock lock(mutex);
      stats = source->stats();
      work.wait(lock, [&] { return !commands.empty() || !live.empty() || stopping; });
      if (commands.empty() && live.empty()) break;
      taken.swap(commands);
      now = stopping == Stop::kNow;
    }
    for (Command& command : taken) execute(std::move(command), now);
    if (now) {
      end_all(cancelled());
    } else {
      step();
    }
  }
  const std::scoped_lock lock(mutex);
  finished = true;
  ended.notify_all();
}

void EngineRunner::Impl::execute(Command command, bool now) {
  if (!command.on_token) {
    const auto found = live.find(command.id);
    if (found == live.end()) return;
    source->cancel(found->second.in_source);
    runner_id.erase(found->second.in_source);
    end(std::move(live.extract(found).mapped()), command.id, cancelled());
    return;
  }
  Live request{0, std::move(command.on_token)};
  if (now) return end(std::move(request), command.id, cancelled());
  const Result<RequestId> id = source->add(command.request);
  if (!id.ok()) {
    if (id.status().code() == Errc::kDeviceLost) refuse(id.status());
    return end(std::move(request), command.id, id.status());
  }
  request.in_source = *id;
  runner_id[*id] = command.id;
  live[command.id] = std::move(request);
}

void EngineRunner::Impl::step() {
  if (live.empty()) return;
  Result<std::vector<EngineToken>> tokens(Errc::kInternal, "");
  if (Status thrown = guarded("a step", [&] { tokens = source->step(); }); !thrown.ok()) {
    tokens = std::move(thrown);
  }
  if (!tokens.ok()) {
    // What state the source is in is unknown.
    refuse(tokens.status());
    return end_all(tokens.status());
  }
  for (EngineToken& token : *tokens) {
    if (token.status.code() == Errc::kDeviceLost) refuse(token.status);
    deliver(std::move(token));
  }
}

void EngineRunner::Impl::deliver(EngineToken token) {
  const auto known = runner_id.find(token.request);
  if (known == runner_id.end()) return;  // its callback threw earlier in this step
  const auto found = live.find(known->second);
  const RequestId in_source = std::exchange(token.request, known->second);
  const bool last = token.finish != FinishReason::kNone;
  const Status status = guarded("on_token", [&] { found->second.on_token(token); });
  if (!last && status.ok()) return;
  Live request = std::move(live.extract(found).mapped());
  runner_id.erase(in_source);
  if (last) return;  // also when it threw: it knows its end
  source->cancel(in_source);
  end(std::move(request), token.request, status);
}

void EngineRunner::Impl::end(Live request, RequestId id, const Status& status) {
  EngineToken token{id};
  token.has_token = false, token.finish = FinishReason::kFailed, token.status = status;
  (void)guarded("on_token", [&] { request.on_token(token); });  // there is nothing left to end
}

void EngineRunner::Impl::end_all(const Status& status) {
  runner_id.clear();
  for (auto& [id, request] : std::exchange(live, {})) {
    source->cancel(request.in_source);
    end(std::move(request), id, status);
  }
}

void EngineRunner::Impl::refuse(const Status& status) {
  const std::scoped_lock lock(mutex);
  if (refusal.ok()) refusal = status;
}

EngineRunner::EngineRunner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<EngineRunner>> EngineRunner::create(Engine& engine) {
  return create(std::make_unique<EngineSource>(engine));
}

Result<std::unique_ptr<EngineRunner>> EngineRunner::create(std::unique_ptr<StepSource> source) {
  auto impl = std::make_unique<Impl>();
  impl->source = std::move(source);
  impl->stats = impl->source->stats();
  try {
    impl->thread = std::thread([impl = impl.get()] { impl->run(); });
  } catch (const std::system_error& e) {
    return Status(Errc::kInternal, fmt::format("engine_runner: no thread: {}", e.what()));
  }
  return std::unique_ptr<EngineRunner>(new EngineRunner(std::move(impl)));
}

EngineRunner::~EngineRunner() {
  stop(Stop::kNow);
  impl_->thread.join();
}

Result<RequestId> EngineRunner::add(EngineRequest request, OnToken on_token) {
  if (!on_token) {
    return Status(Errc::kInvalidArgument, "engine_runner: on_token must be set, got none");
  }
  HADAL_TRY(impl_->source->check(request));
  const std::scoped_lock lock(impl_->mutex);
  HADAL_TRY(impl_->refusal);
  if (impl_->stopping) return Status(Errc::kCancelled, "engine_runner: it was stopped");
  const RequestId id = ++impl_->last_id;
  impl_->commands.push_back({id, std::move(request), std::move(on_token)});
  impl_->work.notify_one();
  return id;
}

void EngineRunner::cancel(RequestId request) {
  const std::scoped_lock lock(impl_->mutex);
  if (request == 0 || request > impl_->last_id) return;
  impl_->commands.push_back({request, {}, {}});
  impl_->work.notify_one();
}

void EngineRunner::stop(Stop how) {
  std::unique_lock lock(impl_->mutex);
  if (!impl_->stopping || how == Stop::kNow) impl_->stopping = how;
  impl_->work.notify_one();
  if (std::this_thread::get_id() == impl_->thread.get_id()) return;
  impl_->ended.wait(lock, [this] { return impl_->finished; });
}

EngineStats EngineRunner::stats() const {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->stats;
}

}  // namespace hadal::runtime
