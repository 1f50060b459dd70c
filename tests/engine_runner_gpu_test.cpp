// The runner over a real engine, used from eight threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>

#include "hadal/runtime/engine_runner.h"
#include "support/random.h"
#include "support/served_model.h"

namespace hadal::test {
namespace {

using runtime::FinishReason;

runtime::EngineRequest request(uint32_t kind) {
  runtime::EngineRequest r;
  for (uint32_t i = 0; i < 20 + 15 * kind; ++i) r.prompt.push_back(3 + (kind + i * 7) % 400);
  r.max_new_tokens = 6 + kind;
  r.sampling.temperature = kind % 2 ? 0.8f : 0.0f, r.sampling.seed = kind;
  return r;
}

struct Outcome {
  std::vector<uint32_t> ids;
  FinishReason finish = FinishReason::kNone;
  Status status;
};

// Adds the request and waits for its end, cancelling behind its third token if asked.
Outcome serve(runtime::EngineRunner& runner, const runtime::EngineRequest& r, bool cancel) {
  Outcome outcome;  // the runner's thread writes it before the promise
  std::promise<void> ended;
  const auto id = runner.add(r, [&, cancel](const runtime::EngineToken& token) {
    if (token.has_token) outcome.ids.push_back(token.id);
    outcome.finish = token.finish, outcome.status = token.status;
    if (token.finish != FinishReason::kNone) return ended.set_value();
    if (cancel && outcome.ids.size() == 3) runner.cancel(token.request);
  });
  EXPECT_TRUE(id.ok()) << id.status().message();
  if (id.ok()) ended.get_future().wait();
  return outcome;
}

class EngineRunnerGpu : public GpuTest {};

TEST_F(EngineRunnerGpu, EightThreadsGetTheirTokens) {
  constexpr uint32_t kKinds = 6;
  Served served(12, 6, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::Engine engine = served.engine({});
  std::atomic<uint32_t> cancelled = 0;
  {
    auto runner = runtime::EngineRunner::create(engine);
    ASSERT_TRUE(runner.ok());
    std::vector<std::vector<uint32_t>> expected;  // of each alone
    for (uint32_t kind = 0; kind < kKinds; ++kind) {
      expected.push_back(serve(**runner, request(kind), false).ids);
      EXPECT_EQ(expected.back().size(), 6 + kind);
    }
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        Random random(t);
        for (int i = 0; i < 5; ++i) {
          const uint32_t kind = random.below(kKinds);
          const bool cancel = random.below(3) == 0;
          const Outcome outcome = serve(**runner, request(kind), cancel);
          if (cancel) {
            EXPECT_EQ(outcome.status.code(), Errc::kCancelled);
            EXPECT_TRUE(std::equal(outcome.ids.begin(), outcome.ids.end(), expected[kind].begin()));
            ++cancelled;
          } else {
            EXPECT_EQ(outcome.finish, FinishReason::kLength);
            EXPECT_EQ(outcome.ids, expected[kind]);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ((*runner)->add({}, [](const auto&) {}).status().message(),
              "scheduler: the prompt must have at least one token, got 0");
    (*runner)->stop(runtime::EngineRunner::Stop::kDrain);
    EXPECT_EQ((*runner)->stats().pages.used, 0u);
  }
  EXPECT_GT(cancelled, 5u);
  EXPECT_TRUE(engine.idle());  // the runner is gone, the engine can be used again
  EXPECT_TRUE(engine.add(request(0)).ok());
}

}  // namespace
}  // namespace hadal::test
