// An engine with a thread of its own: requests come from any thread, tokens reach a callback. The
// thread steps while there is work and sleeps on a condition variable while there is none.
#pragma once

#include <functional>
#include <memory>

#include "hadal/runtime/engine.h"
#include "hadal/status.h"

namespace hadal::runtime {

// What a runner drives: an engine, or a test's stand-in. All but check() are called from the
// runner's thread only.
class StepSource {
 public:
  virtual ~StepSource() = default;
  // Why add() would refuse the request for what it asks; thread-safe.
  [[nodiscard]] virtual Status check(const EngineRequest& request) const = 0;
  [[nodiscard]] virtual Result<RequestId> add(const EngineRequest& request) = 0;
  virtual void cancel(RequestId request) = 0;
  [[nodiscard]] virtual Result<std::vector<EngineToken>> step() = 0;
  [[nodiscard]] virtual EngineStats stats() const = 0;
};

class EngineRunner {
 public:
  // Every request whose add() succeeded gets one entry whose `finish` is not kNone, and none after
  // it. Called on the runner's thread, one at a time, the first time perhaps before add() has
  // returned. Steps wait for it, so it should hand over and return. It may call every member but
  // the destructor. One that throws ends its request: it is called once more, with kFailed and
  // kInvalidArgument.
  using OnToken = std::function<void(const EngineToken&)>;

  // The engine must outlive the runner and is its alone until then. Errors: kInternal when the
  // system gives no thread.
  [[nodiscard]] static Result<std::unique_ptr<EngineRunner>> create(Engine& engine);
  [[nodiscard]] static Result<std::unique_ptr<EngineRunner>> create(
      std::unique_ptr<StepSource> source);
  // stop(kNow), then joins. Not from a callback.
  ~EngineRunner();
  EngineRunner(const EngineRunner&) = delete;
  EngineRunner& operator=(const EngineRunner&) = delete;

  // Thread-safe; waits for no step. The id is the runner's, in every entry too. Errors: those of
  // Engine::add for what the request asks; kCancelled after stop(); kDeviceLost once the engine
  // said so. A cache that could not hold the request, found out later, ends it with kFailed.
  [[nodiscard]] Result<RequestId> add(EngineRequest request, OnToken on_token);
  // Thread-safe. The request ends between steps with kFailed and kCancelled, unless it has ended
  // before; tokens of the step under way may come first. Unknown ids are ignored.
  void cancel(RequestId request);

  enum class Stop {
    kDrain,  // what was added is served
    kNow,    // what was added ends with kFailed and kCancelled after the step under way
  };
  // Nothing can be added any more. Waits until every request has ended, except when it is called
  // from a callback. Thread-safe; the first kNow wins over kDrain.
  void stop(Stop how);

  // Between the last two steps; after stop(), at the end. Thread-safe.
  [[nodiscard]] EngineStats stats() const;

 private:
  struct Impl;
  explicit EngineRunner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal::runtime
