// What happens to an engine's requests when copies of their pages fail: to host memory, back, or
// into a state.
#include <gtest/gtest.h>

#include <array>

#include "support/gpu.h"
#include "support/outcomes.h"
#include "support/served_model.h"
#include "support/vulkan_faults.h"

namespace hadal::test {
namespace {

using Call = VulkanFault::Call;
using runtime::Engine;
using runtime::EngineOptions;
using runtime::EngineRequest;
using runtime::FinishReason;

constexpr std::array kCalls = {Call::kEndCommandBuffer, Call::kQueueSubmit, Call::kWaitSemaphores};

// How a copy that runs into it ends.
VulkanFault out_of_memory(Call call, uint32_t after = 0) {
  return {*device(), call, VK_ERROR_OUT_OF_DEVICE_MEMORY, after, 1};
}

class EngineSwapFaultsGpu : public GpuTest {};

// Two requests of which one gives way, with its pages, to a third that is more important. What is
// planned depends on no measured time.
struct Crowd {
  std::vector<EngineRequest> requests = {request(70, 5, 60), request(30, 9, 60),
                                         request(150, 3, 30)};
  std::vector<std::vector<uint32_t>> expected;
  EngineOptions options;
  // Of an undisturbed run: pages moved by each step.
  std::vector<uint64_t> moved_out, moved_in;

  Crowd(Served& served, bool speculate) {
    requests[2].priority = 1;
    options.speculate = options.always_draft = speculate;
    options.swap_bytes = 16 << 20, options.always_swap = true, options.step_seconds = 1e9;
    Engine engine = fresh(served);
    for (const EngineRequest& r : requests) expected.push_back(tokens_of(engine, r));
    EXPECT_EQ(engine.stats().scheduler.preemptions, 0u);
    Engine crowded = fresh(served);
    EXPECT_EQ(run_with(crowded, UINT32_MAX, Call::kQueueSubmit), 0u);
  }
  [[nodiscard]] Engine fresh(Served& served) const {
    served.pool.forget_all();
    return served.engine(options);
  }
  // Step `failing` runs into the fault with its first submission. How many requests it ended; all
  // the others get their tokens.
  uint32_t run_with(Engine& engine, uint32_t failing, Call call) {
    Outcomes outcomes;
    std::vector<runtime::RequestId> ids = {*engine.add(requests[0]), *engine.add(requests[1])};
    uint32_t failed = 0;
    for (uint32_t i = 0; !engine.idle() || i < 3; ++i) {
      if (i == 3) ids.push_back(*engine.add(requests[2]));
      const runtime::SchedulerStats before = engine.stats().scheduler;
      if (i == failing) {
        const VulkanFault fault = out_of_memory(call);
        step(engine, outcomes);
        EXPECT_EQ(fault.failed(), 1u);
      } else {
        step(engine, outcomes);
      }
      if (testing::Test::HasFatalFailure()) return failed;
      const runtime::SchedulerStats after = engine.stats().scheduler;
      if (failing == UINT32_MAX) {
        moved_out.push_back(after.swapped_out_pages - before.swapped_out_pages);
        moved_in.push_back(after.swapped_in_pages - before.swapped_in_pages);
      }
      uint32_t now = 0;
      for (const auto& [id, outcome] : outcomes) now += outcome.finish == FinishReason::kFailed;
      EXPECT_TRUE(i == failing || now == failed) << "step " << i;
      failed = now;
    }
    for (size_t r = 0; r < ids.size(); ++r) {
      const Outcome& outcome = outcomes[ids[r]];
      if (outcome.finish == FinishReason::kFailed) {
        EXPECT_EQ(outcome.status.code(), Errc::kOutOfDeviceMemory);
        EXPECT_LT(outcome.ids.size(), expected[r].size());
        EXPECT_TRUE(std::equal(outcome.ids.begin(), outcome.ids.end(), expected[r].begin()));
      } else {
        EXPECT_EQ(outcome.finish, FinishReason::kLength);
        EXPECT_EQ(outcome.ids, expected[r]) << "request " << r;
      }
    }
    EXPECT_EQ(engine.stats().pages.used, 0u);
    EXPECT_EQ(engine.stats().scheduler.swap_used, 0u);
    return failed;
  }
};

// The request whose pages were under way ends, then and alone, wherever the copy fails; the engine
// then serves all of them.
TEST_F(EngineSwapFaultsGpu, AFailingSwapEndsTheRequestThatMoves) {
  for (const bool speculate : {false, true}) {
    SCOPED_TRACE(speculate);
    Served served(5, 4, 256);
    ASSERT_TRUE(served.model.ok());
    Crowd crowd(served, speculate);
    uint32_t out = 0, in = 0, call = 0;
    for (uint32_t i = 0; i < crowd.moved_out.size(); ++i) {
      const bool moves_out = crowd.moved_out[i] > 0, moves_in = crowd.moved_in[i] > 0;
      ASSERT_FALSE(moves_out && moves_in) << "one request a step";
      if (!moves_out && !moves_in) continue;
      // Every call once for each direction is enough.
      if ((moves_out ? out : in)++ >= kCalls.size()) continue;
      SCOPED_TRACE(fmt::format("{} in step {}", moves_out ? "out" : "in", i));
      Engine engine = crowd.fresh(served);
      const uint64_t allocated = device()->allocated_bytes();
      EXPECT_EQ(crowd.run_with(engine, i, kCalls[call++ % kCalls.size()]), 1u);
      EXPECT_EQ(engine.stats().failed_requests, 1u);
      for (size_t r = 0; r < crowd.requests.size(); ++r) {
        EXPECT_EQ(tokens_of(engine, crowd.requests[r]), crowd.expected[r]);
      }
      EXPECT_EQ(device()->allocated_bytes(), allocated);
    }
    EXPECT_GT(out, 0u);
    EXPECT_GT(in, 0u);
  }
}

// A state that cannot be read is refused with the driver's word; its request goes on, can be
// exported then, and gets its tokens here and there.
TEST_F(EngineSwapFaultsGpu, AFailingExportLeavesTheRequestAlone) {
  for (const bool speculate : {false, true}) {
    SCOPED_TRACE(speculate);
    Served served(8, 4, 256), other(8, 4, 256);
    ASSERT_TRUE(served.model.ok() && other.model.ok());
    EngineOptions options;
    options.speculate = options.always_draft = speculate;
    Engine engine = served.engine(options), there = other.engine(options);
    const std::vector<uint32_t> expected = tokens_of(engine, request(100, 5, 20));
    const uint64_t allocated = device()->allocated_bytes();
    Outcomes outcomes;
    const auto id = engine.add(request(100, 5, 20));
    for (const Call call : kCalls) {
      step(engine, outcomes);
      const VulkanFault fault = out_of_memory(call);
      const auto state = engine.export_request(*id);
      EXPECT_EQ(state.status().code(), Errc::kOutOfDeviceMemory);
      EXPECT_EQ(fault.failed(), 1u);
      EXPECT_EQ(device()->allocated_bytes(), allocated);
    }
    const auto state = engine.export_request(*id);
    ASSERT_TRUE(state.ok()) << state.status().message();
    Outcomes outcomes_there;
    outcomes_there[1].ids = outcomes[*id].ids;
    const auto id_there = there.import_request(*state);
    ASSERT_TRUE(id_there.ok()) << id_there.status().message();
    ASSERT_EQ(*id_there, 1u);
    run(engine, outcomes), run(there, outcomes_there);
    EXPECT_EQ(outcomes[*id].ids, expected);
    EXPECT_EQ(outcomes_there[1].ids, expected);
    EXPECT_EQ(engine.stats().pages.used, 0u);
    EXPECT_EQ(there.stats().pages.used, 0u);
  }
}

// A prefill-only request whose state cannot be read ends so, behind its first token; there is
// nothing to export. The one beside it goes on.
TEST_F(EngineSwapFaultsGpu, AFailingHandOverEndsItsRequest) {
  Served served(8, 4, 256);
  ASSERT_TRUE(served.model.ok());
  EngineOptions options;
  options.step_seconds = 1e9;  // a whole prompt in a step, however long it takes here
  Engine engine = served.engine(options);
  const std::vector<uint32_t> expected = tokens_of(engine, request(70, 5, 12));
  for (const Call call : kCalls) {
    Outcomes outcomes;
    const auto beside = engine.add(request(70, 5, 12));
    step(engine, outcomes);
    step(engine, outcomes);
    step(engine, outcomes);
    EngineRequest only = request(50, 5, 12);
    only.prefill_only = true;
    const auto id = engine.add(only);
    {
      // Recorded anew are the prompt and the copy, submitted decode, prompt and copy.
      const VulkanFault fault = out_of_memory(call, call == Call::kEndCommandBuffer ? 1 : 2);
      step(engine, outcomes);
      EXPECT_EQ(fault.failed(), 1u);
    }
    EXPECT_EQ(outcomes[*id].finish, FinishReason::kFailed);
    EXPECT_EQ(outcomes[*id].status.code(), Errc::kOutOfDeviceMemory);
    EXPECT_EQ(outcomes[*id].ids.size(), 1u);
    EXPECT_EQ(engine.export_request(*id).status().code(), Errc::kInvalidArgument);
    run(engine, outcomes);
    EXPECT_EQ(outcomes[*beside].ids, expected);
    EXPECT_EQ(engine.stats().pages.used, 0u);
  }
}

}  // namespace
}  // namespace hadal::test
