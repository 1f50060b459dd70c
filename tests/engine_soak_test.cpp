// Long service in short: an engine with requests that come, stop, are cancelled, run out of time or
// fail, in a cache too small for them. Tokens stay right, memory stays flat.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>

#include "hadal/runtime/engine.h"
#include "support/random.h"
#include "support/served_model.h"
#include "support/vulkan_faults.h"

namespace hadal::test {
namespace {

using runtime::FinishReason;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kKinds = 12;

runtime::EngineRequest request(uint32_t kind) {
  runtime::EngineRequest r;
  const uint32_t length = kind % 3 ? 10 + 4 * kind : 70 + 8 * kind;
  for (uint32_t i = 0; i < length; ++i) r.prompt.push_back(3 + (kind % 2 + i * 7) % 400);
  r.max_new_tokens = 10 + 7 * kind;
  if (kind % 4 == 1) r.sampling.temperature = 0.8f, r.sampling.seed = kind;
  if (kind % 4 == 2) r.stop = {"e a", "the"};
  r.priority = int32_t(kind % 3);
  return r;
}

uint64_t resident_bytes() {
  uint64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * uint64_t(sysconf(_SC_PAGESIZE));
}

class EngineSoakGpu : public GpuTest {
 protected:
  // With preempted requests computed again, or kept in host memory.
  static void soak(uint32_t steps, bool swap);
};

struct Outcome {
  uint32_t kind = 0;
  std::vector<uint32_t> ids;
  std::string text;
};

void EngineSoakGpu::soak(uint32_t steps, bool swap) {
  const model::Tokenizer tokenizer = model::Tokenizer::load(kFables).value();
  Served served(6, 6, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::EngineOptions options;
  options.tokenizer = &tokenizer, options.speculate = options.always_draft = true;
  options.aging_steps = 10;
  options.swap_bytes = swap ? 1 << 20 : 0, options.always_swap = swap;  // a few pages
  options.step_seconds = 1e9;  // whole chunks, however long steps take here
  runtime::Engine engine = served.engine(options);
  std::map<runtime::RequestId, Outcome> alive;
  std::vector<Outcome> expected(kKinds);
  std::map<FinishReason, uint32_t> ends;
  uint32_t cancelled = 0;
  // Takes a step's entries; `learn`: they become what is expected.
  const auto step = [&](bool learn) {
    const auto tokens = engine.step();
    ASSERT_TRUE(tokens.ok()) << tokens.status().message();
    for (const runtime::EngineToken& token : *tokens) {
      Outcome& got = alive.at(token.request);
      if (token.has_token) got.ids.push_back(token.id);
      got.text += token.text;
      if (token.finish == FinishReason::kNone) continue;
      ++ends[token.finish];
      Outcome& all = expected[got.kind];
      if (learn) {
        all = got;
      } else if (token.finish == FinishReason::kLength || token.finish == FinishReason::kStop) {
        ASSERT_EQ(got.ids, all.ids) << "kind " << got.kind;
        ASSERT_EQ(got.text, all.text);
      } else {
        ASSERT_EQ(token.status.ok(), token.finish == FinishReason::kDeadline);
        ASSERT_LE(got.ids.size(), all.ids.size());
        ASSERT_TRUE(std::equal(got.ids.begin(), got.ids.end(), all.ids.begin()));
      }
      alive.erase(token.request);
    }
  };
  for (uint32_t kind = 0; kind < kKinds; ++kind) {  // alone
    alive[*engine.add(request(kind))].kind = kind;
    while (!engine.idle()) ASSERT_NO_FATAL_FAILURE(step(true));
  }
  ends.clear();
  const uint64_t allocated = device()->allocated_bytes(), begin = engine.stats().steps;
  uint64_t resident = 0;
  Random random(steps);
  for (uint32_t i = 0; i < steps; ++i) {
    while (alive.size() < 10 && random.below(3)) {
      const uint32_t kind = random.below(kKinds);
      runtime::EngineRequest r = request(kind);
      if (random.below(8) == 0) {
        r.deadline = Clock::now() + std::chrono::milliseconds(random.below(2) * random.below(100));
      }
      alive[*engine.add(r)].kind = kind;
    }
    if (random.below(15) == 0 && !alive.empty()) {
      const auto victim = std::next(alive.begin(), random.below(uint32_t(alive.size())));
      engine.cancel(victim->first);
      alive.erase(victim), ++cancelled;
    }
    std::optional<VulkanFault> fault;
    if (random.below(25) == 0) {
      fault.emplace(*device(), VulkanFault::Call::kQueueSubmit, VK_ERROR_OUT_OF_DEVICE_MEMORY,
                    random.below(3), 1);
    }
    ASSERT_NO_FATAL_FAILURE(step(false));
    ASSERT_EQ(device()->allocated_bytes(), allocated);
    if (i == steps / 4) resident = resident_bytes();
  }
  const int64_t growth = int64_t(resident_bytes() - resident);
  for (int i = 0; !engine.idle(); ++i) {
    ASSERT_LT(i, 5000) << "the engine does not get on";
    ASSERT_NO_FATAL_FAILURE(step(false));
  }
  const runtime::EngineStats stats = engine.stats();
  EXPECT_TRUE(alive.empty());
  EXPECT_GE(stats.steps - begin, uint64_t{steps} * 9 / 10);
  EXPECT_EQ(stats.pages.used, 0u);
  EXPECT_EQ(stats.scheduler.swap_used, 0u);
  EXPECT_EQ(stats.scheduler.swapped_in_pages > 0, swap);
  EXPECT_EQ(stats.scheduler.waiting + stats.scheduler.admitted, 0u);
  EXPECT_GT(stats.scheduler.preemptions, steps / 100);
  EXPECT_GT(cancelled, steps / 50);
  for (const auto finish : {FinishReason::kLength, FinishReason::kStop, FinishReason::kDeadline,
                            FinishReason::kFailed}) {
    EXPECT_GT(ends[finish], steps / 200) << int(finish);
  }
  RecordProperty("preemptions", std::to_string(stats.scheduler.preemptions));
  RecordProperty("resident_growth_bytes", std::to_string(growth));
  RecordProperty("preemptions", std::to_string(stats.scheduler.preemptions));
#ifndef __SANITIZE_ADDRESS__  // which keeps freed memory
  // A leak of one token's entry or of one recorded command per step would show.
  if (steps >= 2000) {
    EXPECT_LT(growth, int64_t{steps} * 1024);
  }
#endif
}

TEST_F(EngineSoakGpu, TwoHundredSteps) {
  soak(200, false);
}

TEST_F(EngineSoakGpu, TwoHundredStepsWithSwaps) {
  soak(200, true);
}

TEST_F(EngineSoakGpu, TwoThousandSteps) {
  if (!std::getenv("HADAL_TEST_ALL")) GTEST_SKIP() << "runs with HADAL_TEST_ALL";
  soak(2000, false);
  soak(2000, true);
}

}  // namespace
}  // namespace hadal::test
