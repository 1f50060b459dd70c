// Pipelines made before they are needed. Each case has a device of its own, on which none is made
// yet.
#include "hadal/runtime/warm_up.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <set>

#include "hadal/runtime/generator.h"
#include "support/gpu.h"
#include "support/pipeline_runs.h"
#include "support/served_model.h"
#include "support/vulkan_faults.h"

namespace hadal::test {
namespace {

using runtime::Generator;
using runtime::WarmUp;
using Call = VulkanFault::Call;

class WarmUpGpu : public GpuTest {};

constexpr uint32_t kRows = 5, kTokens = 48;

// fables on a fresh device.
struct Fresh {
  std::unique_ptr<Device> device;
  std::unique_ptr<model::Model> model;
  std::optional<runtime::KvCache> cache;
  std::optional<runtime::PagePool> pages;

  explicit Fresh(uint32_t logit_rows = 1, uint32_t max_tokens = kTokens) {
    const Status status = build(logit_rows, max_tokens);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  Status build(uint32_t logit_rows, uint32_t max_tokens) {
    const uint32_t context = max_tokens > kTokens ? 1280 : 128, page_count = context / 8;
    HADAL_ASSIGN(device, Device::create());
    HADAL_ASSIGN(const model::ModelConfig config, model::load_config(kFables));
    HADAL_ASSIGN(const model::Checkpoint checkpoint, model::Checkpoint::open(kFables));
    HADAL_ASSIGN(model::Weights weights, model::Weights::load(*device, checkpoint, config, {}));
    model::ModelOptions options;
    options.max_context = context, options.max_tokens = max_tokens;
    options.max_decode_rows = kRows;
    options.max_logit_rows = logit_rows;
    HADAL_ASSIGN(cache, runtime::KvCache::create(*device, config, page_count, CacheFormat::kF32));
    pages.emplace(page_count);
    HADAL_ASSIGN(model, model::Model::create(*device, config, std::move(weights), options));
    return {};
  }
  [[nodiscard]] Generator generator() {
    auto generator = Generator::create(*device, *model, *cache, *pages);
    EXPECT_TRUE(generator.ok()) << generator.status().message();
    return std::move(generator).value();
  }
};

// All that passes of up to 32 rows need, so that none is made once they run.
TEST_F(WarmUpGpu, NothingIsLeftToMake) {
  Fresh fresh;
  auto prefill = runtime::PrefillPipeline::create(*fresh.device, *fresh.model, *fresh.cache);
  auto decode = runtime::DecodePipeline::create(*fresh.device, *fresh.model, *fresh.cache, kRows);
  ASSERT_TRUE(prefill.ok() && decode.ok());
  const auto pieces = runtime::pieces_of_passes(*fresh.model, fresh.cache->view(), decode->pass(),
                                                runtime::row_counts(kRows), prefill->pass(),
                                                runtime::row_counts(kTokens), false);
  {
    const VulkanFault made(*fresh.device, Call::kCreateComputePipelines, VK_SUCCESS, 0, 0);
    ASSERT_TRUE(
        runtime::record_and_drop(*fresh.device, pieces, {.threads = 4, .cancelled = {}}).ok());
    EXPECT_GT(made.calls(), 15u);
  }
  const VulkanFault made(*fresh.device, Call::kCreateComputePipelines, VK_SUCCESS, 0, 0);
  const std::vector<uint32_t> ids(kTokens, 7);
  for (const uint32_t tokens : {1, 2, 3, 5, 7, 8, 9, 11, 15, 16, 17, 23, 31, 32, 48}) {
    runtime::SequencePages pages(*fresh.pages);
    const runtime::PrefillPart part{&pages, 0, std::span(ids).first(tokens)};
    const auto head = [&](Recorder& r) { return prefill->pass().record_head(r, tokens - 1, 1); };
    ASSERT_TRUE(prefill->run_pass({&part, 1}, head).ok());
    EXPECT_EQ(made.calls(), 0u) << tokens << " tokens";
  }
  for (uint32_t count = 1; count <= kRows; ++count) {
    std::vector<runtime::SequencePages> pages;
    for (uint32_t i = 0; i < count; ++i) pages.emplace_back(*fresh.pages);
    std::vector<runtime::DecodeRow> rows;
    for (uint32_t i = 0; i < count; ++i) rows.push_back({&pages[i], 7, 0});
    ASSERT_TRUE(decode->step(rows).ok());
    EXPECT_EQ(made.calls(), 0u) << count << " rows";
  }
}

// Nothing of passes, guesses of whatever depth and source, and sampling.
TEST_F(WarmUpGpu, AnEngineHasNothingLeft) {
  for (const uint32_t depth : {0u, 3u}) {
    SCOPED_TRACE(depth);
    Fresh fresh(kRows);
    runtime::EngineOptions options;
    options.max_rows = kRows, options.max_chunk = kTokens;
    options.speculate = options.always_draft = depth > 0;
    options.draft_depth = std::max(depth, 1u);
    auto engine =
        runtime::Engine::create(*fresh.device, *fresh.model, *fresh.cache, *fresh.pages, options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    ASSERT_TRUE(engine->warm_up({.threads = 2, .cancelled = {}}).ok());
    const VulkanFault made(*fresh.device, Call::kCreateComputePipelines, VK_SUCCESS, 0, 0);
    for (uint32_t length : {3, 20, 5, 9}) {
      runtime::EngineRequest request;
      request.prompt.assign(length, 7), request.max_new_tokens = 8;
      if (length > 5) request.sampling.repetition_penalty = 1.2f;  // adjusted logits
      if (length != 9) request.logprobs = 2;                       // beside raw ones, and in place
      ASSERT_TRUE(engine->add(request).ok());
      if (length != 5) continue;
      ASSERT_TRUE(engine->step().ok());
    }
    while (!engine->idle()) ASSERT_TRUE(engine->step().ok());
    EXPECT_EQ(made.calls(), 0u);
    // Guesses were made, of rows that had to be brought together.
    EXPECT_EQ(engine->stats().verified_drafts > 0, depth > 0);
    EXPECT_EQ(engine->stats().draft_recordings.recorded > 2, depth > 0);
  }
}

// Drivers compile at the first dispatch what they left out when they made a pipeline.
TEST_F(WarmUpGpu, EveryPipelineOfARequestHasRun) {
  constexpr uint32_t kChunk = 256;
  std::vector<uint32_t> lengths = {100, 127, 129, 200, 300, 1030};
  for (uint32_t length = 1; length < 70; ++length) lengths.push_back(length);
  const auto left = [](const PipelineRuns& runs, const std::set<VkPipeline>& before) {
    std::set<VkPipeline> now = runs.pipelines();
    return std::erase_if(now, [&](VkPipeline p) { return before.contains(p); }), now.size();
  };
  for (const bool speculate : {false, true}) {
    SCOPED_TRACE(speculate);
    Fresh fresh(kRows, kChunk);
    runtime::EngineOptions options;
    options.max_rows = kRows, options.max_chunk = kChunk;
    options.speculate = options.always_draft = speculate;
    auto engine =
        runtime::Engine::create(*fresh.device, *fresh.model, *fresh.cache, *fresh.pages, options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    const PipelineRuns runs(*fresh.device);
    ASSERT_TRUE(engine->warm_up({}).ok());
    const std::set<VkPipeline> before = runs.pipelines();
    EXPECT_GT(before.size(), 15u);
    for (const uint32_t together : {1u, 3u}) {
      for (size_t i = 0; i < lengths.size(); ++i) {
        runtime::EngineRequest request;
        request.prompt.assign(lengths[i], 7 + uint32_t(together)), request.max_new_tokens = 3;
        request.prompt[0] = uint32_t(i);  // nothing is known of it
        ASSERT_TRUE(engine->add(request).ok());
        while (i % together == together - 1 && !engine->idle()) ASSERT_TRUE(engine->step().ok());
        EXPECT_EQ(left(runs, before), 0u) << together << " prompts up to " << lengths[i];
      }
    }
  }
  for (const uint32_t length : {1u, 17u, 65u, 200u, 300u}) {
    Fresh fresh(1, kChunk);
    Generator generator = fresh.generator();
    const PipelineRuns runs(*fresh.device);
    ASSERT_TRUE(generator.warm_up(length, {}).ok());
    const std::set<VkPipeline> before = runs.pipelines();
    runtime::GenerateOptions four;
    four.max_new_tokens = 4;
    ASSERT_TRUE(generator.generate(std::vector<uint32_t>(length, 7), four).ok());
    EXPECT_EQ(left(runs, before), 0u) << length;
  }
}

// The passes that a warm-up runs are those of requests: their decode step is recorded already. They
// leave no page behind, none known to the pool, and no token changed; and where the pool has none
// to spare for them, what others may take over stays.
TEST_F(WarmUpGpu, AnEngineRunsPassesInFreePages) {
  Served served(4, 2, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::EngineOptions options;
  options.speculate = options.always_draft = true;
  runtime::EngineRequest request;
  request.prompt.assign(130, 7), request.max_new_tokens = 6;  // three pages
  const auto run = [&](runtime::Engine& engine) {
    std::vector<uint32_t> ids;
    EXPECT_TRUE(engine.add(request).ok());
    while (!engine.idle()) {
      const auto tokens = engine.step();
      EXPECT_TRUE(tokens.ok()) << tokens.status().message();
      for (const auto& token : *tokens) ids.push_back(token.id);
    }
    return ids;
  };
  runtime::Engine cold = served.engine(options);
  const std::vector<uint32_t> expected = run(cold);
  EXPECT_GT(cold.stats().recordings.recorded, 0u);
  EXPECT_GT(cold.stats().draft_recordings.recorded, 1u);

  runtime::Engine warm = served.engine(options);  // which forgets the pages that are known
  ASSERT_TRUE(warm.warm_up({}).ok());
  EXPECT_EQ(served.pool.stats().free, 4u);
  const runtime::EngineStats before = warm.stats();
  EXPECT_EQ(before.steps, 0u);
  EXPECT_EQ(run(warm), expected);
  EXPECT_EQ(warm.stats().recordings.recorded, before.recordings.recorded);
  // The last pair alone, without a guess, is new.
  EXPECT_EQ(warm.stats().draft_recordings.recorded, before.draft_recordings.recorded + 1);

  EXPECT_EQ(served.pool.stats().cached, 2u);  // of the prompt
  request.prompt.assign(70, 9);
  (void)run(warm);
  EXPECT_EQ(served.pool.stats().cached, 3u);
  ASSERT_TRUE(warm.warm_up({}).ok());
  EXPECT_EQ(served.pool.stats().cached, 3u);
}

TEST_F(WarmUpGpu, ThreadsMakeWhatOneMakes) {
  uint32_t made[2] = {};
  std::vector<uint32_t> ids[2];
  for (const uint32_t threads : {1u, 4u}) {
    Fresh fresh;
    Generator generator = fresh.generator();
    const VulkanFault calls(*fresh.device, Call::kCreateComputePipelines, VK_SUCCESS, 0, 0);
    ASSERT_TRUE(generator.warm_up(16, {.threads = threads, .cancelled = {}}).ok());
    made[threads > 1] = calls.calls();
    const std::vector<uint32_t> prompt(16, 7);
    runtime::GenerateOptions four;
    four.max_new_tokens = 4;
    const auto result = generator.generate(prompt, four);
    ASSERT_TRUE(result.ok());
    ids[threads > 1] = result->ids;
    EXPECT_EQ(calls.calls(), made[threads > 1]);  // no more
  }
  EXPECT_EQ(made[0], made[1]);
  EXPECT_EQ(ids[0], ids[1]);
}

// Each on a fresh device: what the other threads had begun when one failed stays made, and is any
// number of pipelines.
TEST_F(WarmUpGpu, AFailureAnywhereIsToldAndTriedAgain) {
  for (uint32_t after : {0u, 3u, 7u}) {
    Fresh fresh;
    Generator generator = fresh.generator();
    const VulkanFault fault(*fresh.device, Call::kCreateComputePipelines,
                            VK_ERROR_OUT_OF_HOST_MEMORY, after, 1);
    const Status status = generator.warm_up(16, {.threads = 3, .cancelled = {}});
    EXPECT_EQ(status.code(), Errc::kOutOfHostMemory) << status.message();
    EXPECT_EQ(fault.failed(), 1u);
    EXPECT_TRUE(generator.warm_up(16, {.threads = 3, .cancelled = {}}).ok());
  }
}

TEST_F(WarmUpGpu, CancelledAnywhereItGoesOnLater) {
  Fresh fresh;
  Generator generator = fresh.generator();
  for (const int after : {0, 1, 4}) {
    std::atomic<int> asked = 0;
    const WarmUp options{.threads = 3, .cancelled = [&] { return asked++ >= after; }};
    EXPECT_EQ(generator.warm_up(16, options).code(), Errc::kCancelled);
  }
  EXPECT_TRUE(generator.warm_up(16, {.threads = 3, .cancelled = {}}).ok());
}

}  // namespace
}  // namespace hadal::test
