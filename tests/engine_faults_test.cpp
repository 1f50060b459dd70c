// What happens to an engine's requests when the driver fails: they end with its status, the engine
// goes on with the others and the next ones, or says that it cannot.
#include <gtest/gtest.h>

#include "hadal/runtime/engine.h"
#include "support/gpu.h"
#include "support/outcomes.h"
#include "support/served_model.h"
#include "support/vulkan_faults.h"

namespace hadal::test {
namespace {

using Call = VulkanFault::Call;
using runtime::FinishReason;

class EngineFaultsGpu : public GpuTest {};

// A failing decode step ends the two requests in it; a third, whose prompt is under way beside it,
// is served, and so is what comes later, with the tokens of an engine that nothing happened to.
// Only the prompt is recorded in that step: a failing end of recording ends the third alone.
TEST_F(EngineFaultsGpu, OutOfMemoryEndsTheRequestsOfTheSubmission) {
  for (const bool speculate : {false, true}) {
    Served served(8, 4, 256);
    ASSERT_TRUE(served.model.ok());
    runtime::EngineOptions options;
    options.speculate = options.always_draft = speculate;
    runtime::Engine engine = served.engine(options);
    const std::vector<uint32_t> expected = tokens_of(engine, request(70, 5, 12));
    const std::vector<uint32_t> expected_b = tokens_of(engine, request(30, 9, 12));
    const uint64_t allocated = device()->allocated_bytes();
    for (const Call call : {Call::kQueueSubmit, Call::kWaitSemaphores, Call::kEndCommandBuffer}) {
      Outcomes outcomes;
      const auto a = engine.add(request(70, 5, 12)), b = engine.add(request(30, 9, 12));
      while (outcomes[*b].ids.size() < 3) step(engine, outcomes);
      std::vector<uint32_t> before = outcomes[*a].ids;
      {
        const VulkanFault fault(*device(), call, VK_ERROR_OUT_OF_DEVICE_MEMORY, 0, 1);
        const auto c = engine.add(request(70, 5, 12));
        run(engine, outcomes);
        EXPECT_EQ(fault.failed(), 1u);
        // What was submitted has ended before anything that it uses is handed out.
        EXPECT_EQ(fault.counter_reads() > 0, call == Call::kWaitSemaphores);
        const bool of_prompt = call == Call::kEndCommandBuffer;
        for (const auto id : of_prompt ? std::vector{*c} : std::vector{*a, *b}) {
          EXPECT_EQ(outcomes[id].finish, FinishReason::kFailed);
          EXPECT_EQ(outcomes[id].status.code(), Errc::kOutOfDeviceMemory);
          EXPECT_NE(outcomes[id].status.message().find("VK_ERROR_OUT_OF_DEVICE_MEMORY"),
                    std::string::npos);
        }
        if (of_prompt) {
          EXPECT_TRUE(outcomes[*c].ids.empty());
          EXPECT_EQ(outcomes[*a].ids, expected);
          EXPECT_EQ(outcomes[*b].ids, expected_b);
        } else {
          EXPECT_EQ(outcomes[*a].ids, before);  // and the tokens that it had were right
          before.resize(std::min(before.size(), expected.size()));
          EXPECT_TRUE(std::equal(before.begin(), before.end(), expected.begin()));
          EXPECT_EQ(outcomes[*c].finish, FinishReason::kLength);
          EXPECT_EQ(outcomes[*c].ids, expected);
        }
      }
      EXPECT_EQ(engine.stats().pages.used, 0u);
      EXPECT_EQ(tokens_of(engine, request(70, 5, 12)), expected);
    }
    EXPECT_EQ(engine.stats().failed_requests, 5u);
    EXPECT_EQ(device()->allocated_bytes(), allocated);
  }
}

// Whichever submission of a request's life fails, it ends then, and the next one with the same
// prompt gets the right tokens: no page that was half written is taken over.
TEST_F(EngineFaultsGpu, EverySubmissionMayFail) {
  Served served(8, 2, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::EngineOptions options;
  options.speculate = options.always_draft = true;
  runtime::Engine engine = served.engine(options);
  std::vector<std::vector<uint32_t>> expected;
  for (uint32_t i = 0; i < 14; ++i) expected.push_back(tokens_of(engine, request(150, i, 4)));
  uint32_t failed = 0, passed = 0;
  for (uint32_t i = 0; i < 14; ++i) {
    // Prompts whose pages are gone from the cache: three prefill chunks, each with its MTP pass.
    Outcomes outcomes;
    const auto id = engine.add(request(150, i, 4));
    {
      const VulkanFault fault(*device(), Call::kQueueSubmit, VK_ERROR_OUT_OF_HOST_MEMORY, i % 12,
                              1);
      run(engine, outcomes);
      EXPECT_EQ(fault.failed() == 1, outcomes[*id].finish == FinishReason::kFailed);
    }
    const Outcome& outcome = outcomes[*id];
    if (outcome.finish == FinishReason::kFailed) {
      ++failed;
      EXPECT_EQ(outcome.status.code(), Errc::kOutOfHostMemory);
      EXPECT_TRUE(std::equal(outcome.ids.begin(), outcome.ids.end(), expected[i].begin()));
    } else {
      ++passed;
      EXPECT_EQ(outcome.ids, expected[i]);
    }
    EXPECT_EQ(tokens_of(engine, request(150, i, 4)), expected[i]);
    EXPECT_EQ(engine.stats().pages.used, 0u);
  }
  EXPECT_GT(failed, 7u);
  EXPECT_GT(passed, 0u);
}

// A prompt of one page whose MTP pass fails publishes nothing, not its first token either: the page
// is not taken over.
TEST_F(EngineFaultsGpu, AHalfWrittenPageIsNeverKnown) {
  Served served(8, 2, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::EngineOptions options;
  options.speculate = true;
  runtime::Engine engine = served.engine(options);
  const auto reused = [&] { return engine.stats().scheduler.reused_tokens; };
  Outcomes outcomes;
  {
    const VulkanFault fault(*device(), Call::kQueueSubmit, VK_ERROR_OUT_OF_DEVICE_MEMORY, 1, 1);
    const auto id = engine.add(request(runtime::kPageTokens, 5, 4));
    run(engine, outcomes);
    EXPECT_TRUE(outcomes[*id].ids.empty());
    EXPECT_EQ(outcomes[*id].finish, FinishReason::kFailed);
  }
  (void)tokens_of(engine, request(runtime::kPageTokens + 6, 5, 1));
  EXPECT_EQ(reused(), 0u);
  (void)tokens_of(engine, request(runtime::kPageTokens + 7, 5, 1));
  EXPECT_EQ(reused(), runtime::kPageTokens);
}

// Guesses are a submission of their own behind each pass: where it fails behind a decode step, the
// requests of the step end, behind the token that they got; a prompt beside them goes on.
TEST_F(EngineFaultsGpu, AFailingDraftEndsTheRequestsOfTheStep) {
  Served served(8, 4, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::EngineOptions options;
  options.speculate = options.always_draft = true, options.draft_depth = 2;
  runtime::Engine engine = served.engine(options);
  const std::vector<uint32_t> expected = tokens_of(engine, request(70, 5, 12));
  Outcomes outcomes;
  const auto a = engine.add(request(70, 5, 12));
  while (outcomes[*a].ids.size() < 3) step(engine, outcomes);
  const size_t before = outcomes[*a].ids.size();
  {
    // Decode, prefill, and then the guesses behind decode.
    const VulkanFault fault(*device(), Call::kQueueSubmit, VK_ERROR_OUT_OF_DEVICE_MEMORY, 2, 1);
    const auto b = engine.add(request(70, 5, 12));
    run(engine, outcomes);
    EXPECT_EQ(fault.failed(), 1u);
    EXPECT_EQ(outcomes[*a].finish, FinishReason::kFailed);
    EXPECT_EQ(outcomes[*a].status.code(), Errc::kOutOfDeviceMemory);
    ASSERT_GT(outcomes[*a].ids.size(), before);
    ASSERT_LE(outcomes[*a].ids.size(), before + 3);
    EXPECT_TRUE(std::equal(outcomes[*a].ids.begin(), outcomes[*a].ids.end(), expected.begin()));
    EXPECT_EQ(outcomes[*b].ids, expected);
  }
  EXPECT_EQ(engine.stats().pages.used, 0u);
  EXPECT_EQ(tokens_of(engine, request(70, 5, 12)), expected);
}

TEST_F(EngineFaultsGpu, AfterALostDeviceEverythingEndsAndNothingStarts) {
  for (const Call call : {Call::kQueueSubmit, Call::kWaitSemaphores, Call::kEveryWait}) {
    Served served(8, 2, 256);
    ASSERT_TRUE(served.model.ok());
    runtime::Engine engine = served.engine({});
    Outcomes outcomes;
    std::vector<runtime::RequestId> ids;
    for (uint32_t i = 0; i < 4; ++i) ids.push_back(*engine.add(request(40, i, 50)));
    for (int i = 0; i < 5; ++i) step(engine, outcomes);
    EXPECT_EQ(engine.stats().scheduler.waiting, 2u);  // they end, too
    {
      // A device that cannot even be waited for is lost, too.
      const VulkanFault fault(
          *device(), call,
          call == Call::kEveryWait ? VK_ERROR_OUT_OF_HOST_MEMORY : VK_ERROR_DEVICE_LOST);
      run(engine, outcomes);
      EXPECT_EQ(fault.failed(), 1u);  // nothing is tried again
    }
    for (const auto id : ids) {
      EXPECT_EQ(outcomes[id].finish, FinishReason::kFailed);
      EXPECT_EQ(outcomes[id].status.code(), Errc::kDeviceLost);
    }
    EXPECT_TRUE(engine.idle());
    EXPECT_EQ(engine.stats().pages.used, 0u);
    const std::string lost =
        "engine: the device is lost; it and all that was created on it must be created again";
    EXPECT_EQ(engine.step().status().code(), Errc::kDeviceLost);
    EXPECT_EQ(engine.step().status().message(), lost);
    EXPECT_EQ(engine.add(request(4, 0, 4)).status().message(), lost);
    engine.cancel(ids[0]);
  }
}

}  // namespace
}  // namespace hadal::test
