// DeepSeek-V3's own context of 163,840 positions: what a plan says, and rows at deep positions. The
// earlier rows of the cache are random numbers, which takes less than computing them.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <optional>

#include "hadal/runtime/decode_pipeline.h"
#include "hadal/runtime/memory_plan.h"
#include "support/engine.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/served_model.h"

namespace hadal::test {
namespace {

using runtime::DecodePipeline;
using runtime::DecodeRow;
using runtime::SequencePages;

constexpr uint32_t kContext = 163840;

class LongContextGpu : public GpuTest {};

void fill_cache(const runtime::KvCache& cache) {
  Random random(17);
  std::vector<uint16_t> rows(1'000'003);  // so that no two pages are alike
  for (uint16_t& value : rows) {
    value = uint16_t(std::bit_cast<uint32_t>(random.uniform(-1.0f, 1.0f)) >> 16);
  }
  const auto bytes = std::as_bytes(std::span(rows));
  for (uint64_t at = 0; at < cache.bytes(); at += bytes.size()) {
    const uint64_t left = std::min<uint64_t>(bytes.size(), cache.bytes() - at);
    ASSERT_TRUE(device()->upload(cache.buffer(), at, bytes.first(left)).ok());
  }
}

// A plan counts all but some words for each row and page.
TEST_F(LongContextGpu, ThePlanIsWhatIsAllocated) {
  constexpr uint32_t kPages = 3;
  TestModelOptions options = for_context(kContext, 64);
  options.pages = kPages;
  const uint64_t before = device()->allocated_bytes();
  TestModel m(kFables, options);
  ASSERT_TRUE(m.ok());
  const uint64_t allocated = device()->allocated_bytes() - before;
  model::ModelConfig config = m.model().config();
  const auto weights = model::weights_device_bytes(*m.checkpoint(), config, options.load);
  ASSERT_TRUE(weights.ok());
  config.max_position_embeddings = kContext;
  Caps caps = device()->caps();
  const auto plan = [&](uint64_t free_bytes) {
    caps.device_heap_free_bytes = caps.device_heap_bytes = free_bytes;
    return runtime::plan_memory(config, *weights, options.model, options.cache_format, caps);
  };
  const uint64_t needed = plan(allocated).needed_bytes(kPages);
  EXPECT_LE(needed, allocated);
  EXPECT_LE(allocated - needed, 16u * sizeof(uint32_t) * (64 + kContext / 64));
  // The whole context beside it, and a byte less.
  const uint64_t whole = plan(allocated).needed_bytes(kContext / 64);
  EXPECT_EQ(plan(whole).longest_context, kContext);
  EXPECT_LT(plan(whole - 1).longest_context, kContext);
}

// The last position there is, alone and beside short rows: the same bits for all of them.
TEST_F(LongContextGpu, ADeepRowHasItsBitsInEveryBatch) {
  TestModelOptions options = for_context(kContext, 64);
  options.cache_format = CacheFormat::kBf16;
  options.model.max_decode_rows = 4;
  options.pages = kContext / 64 + 32;
  TestModel m(kFables, options);
  ASSERT_TRUE(m.ok());
  fill_cache(m.cache());
  auto pipeline = DecodePipeline::create(*device(), m.model(), m.cache(), 4);
  ASSERT_TRUE(pipeline.ok()) << pipeline.status().message();
  const size_t vocab = m.model().config().vocab_size;
  const auto step = [&](std::span<const DecodeRow> rows) {
    const Status status = pipeline->step(rows, 0, [&](Recorder& r, const model::DecodeBatch& b) {
      return pipeline->pass().record_head(r, 0, b.tokens);
    });
    EXPECT_TRUE(status.ok()) << status.message();
    std::vector<float> logits(rows.size() * vocab);
    EXPECT_TRUE(
        device()
            ->download(pipeline->pass().logits(), 0, std::as_writable_bytes(std::span(logits)))
            .ok());
    return logits;
  };
  std::vector<SequencePages> pages;
  for (int i = 0; i < 4; ++i) pages.emplace_back(m.pages());
  const std::vector<DecodeRow> rows = {
      {&pages[0], 5, 63}, {&pages[1], 77, kContext - 1}, {&pages[2], 5, 0}, {&pages[3], 9, 1500}};
  const std::vector<float> together = step(rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<float> alone = step({&rows[i], 1});
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + long(i * vocab))) << i;
  }
  const DecodeRow beyond{&pages[1], 77, kContext};
  EXPECT_EQ(pipeline->step({&beyond, 1}).code(), Errc::kInvalidArgument);
}

// Through the engine: a prompt whose beginning is in the cache, among short ones and alone.
TEST_F(LongContextGpu, TheEngineGoesOnFarBehind) {
  constexpr uint32_t kPrefix = 12288, kPages = kPrefix / 64 + 40;
  Served served(kPages, 4, kContext, CacheFormat::kBf16);
  ASSERT_TRUE(served.model.ok());
  fill_cache(served.model.cache());
  Random random(5);
  runtime::EngineRequest deep;
  for (uint32_t i = 0; i < kPrefix + 21; ++i) deep.prompt.push_back(random.below(2000));
  deep.max_new_tokens = 12, deep.logprobs = 3;
  SequencePages prefix(served.pool);  // keeps the pages from being taken
  ASSERT_TRUE(prefix.reserve(kPrefix).ok());
  prefix.publish(std::span(deep.prompt).first(kPrefix), runtime::PageOrigin::kPrefill);
  std::vector<runtime::EngineRequest> requests = {deep};
  for (uint32_t i = 0; i < 3; ++i) {
    requests.push_back(random_request(random, 256));
    requests.back().mask = {};
  }
  std::vector<Given> want;
  {
    auto generator = runtime::Generator::create(*device(), served.model.model(),
                                                served.model.cache(), served.pool);
    ASSERT_TRUE(generator.ok()) << generator.status().message();
    for (const runtime::EngineRequest& request : requests) {
      want.push_back(alone(*generator, request));
    }
  }
  runtime::Engine engine = served.engine({});
  std::map<runtime::RequestId, size_t> index;
  std::vector<Given> got(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto id = engine.add(requests[i]);
    ASSERT_TRUE(id.ok()) << id.status().message();
    index[*id] = i;
  }
  while (!engine.idle()) {
    const auto tokens = engine.step();
    ASSERT_TRUE(tokens.ok()) << tokens.status().message();
    for (const runtime::EngineToken& token : *tokens) {
      ASSERT_TRUE(token.status.ok()) << token.status.message();
      if (!token.has_token) continue;
      Given& given = got[index.at(token.request)];
      given.ids.push_back(token.id);
      if (token.logprobs) given.logprobs.push_back(*token.logprobs);
    }
  }
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_TRUE(got[i] == want[i]) << i;
  EXPECT_EQ(got[0].ids.size(), 12u);
  EXPECT_GE(engine.stats().scheduler.reused_tokens, kPrefix);
}

// A request that comes with the rows of all positions but the last ones generates to the last one
// that there is, and guesses end there, too.
TEST_F(LongContextGpu, GuessesEndWithTheContext) {
  constexpr uint32_t kLeft = 4, kPages = kContext / 64 + 2;
  Served served(kPages, 4, kContext, CacheFormat::kFp8);
  ASSERT_TRUE(served.model.ok());
  runtime::EngineOptions options;
  Random random(23);
  std::vector<std::byte> bytes;
  const auto rest = [&] {
    runtime::Engine engine = served.engine(options);
    if (bytes.empty()) {
      runtime::SequenceState state;
      state.cache = engine.cache_identity();
      for (uint32_t i = 0; i < kContext - kLeft; ++i) state.ids.push_back(random.below(500));
      state.prompt_tokens = state.computed = kContext - kLeft - 1, state.length = kContext;
      state.logprobs = 0;
      auto written = runtime::write_sequence_state(state, [&](std::span<std::byte> rows) {
        // Codes, scales and rotated keys of small numbers, in a period that fits no row.
        const uint8_t period[] = {0x30, 0x38, 0xb4, 0x3c, 0x2e, 0xb0, 0x3a};
        for (size_t i = 0; i < rows.size(); ++i) rows[i] = std::byte(period[i % 7]);
        return Status();
      });
      EXPECT_TRUE(written.ok()) << written.status().message();
      bytes = std::move(written).value();
    }
    const auto id = engine.import_request(bytes);
    EXPECT_TRUE(id.ok()) << id.status().message();
    Given given;
    while (!engine.idle()) {
      const auto tokens = engine.step();
      EXPECT_TRUE(tokens.ok()) << tokens.status().message();
      if (!tokens.ok()) break;
      for (const runtime::EngineToken& token : *tokens) {
        EXPECT_TRUE(token.status.ok()) << token.status.message();
        if (!token.has_token) continue;
        given.ids.push_back(token.id), given.logprobs.push_back(*token.logprobs);
        EXPECT_TRUE(std::isfinite(token.logprobs->chosen));
        EXPECT_EQ(token.finish, given.ids.size() == kLeft ? runtime::FinishReason::kLength
                                                          : runtime::FinishReason::kNone);
      }
    }
    EXPECT_EQ(engine.stats().verified_drafts > 0, options.speculate);
    EXPECT_EQ(served.pool.stats().used, 0u);
    return given;
  };
  const Given expected = rest();
  EXPECT_EQ(expected.ids.size(), kLeft);
  options.speculate = options.always_draft = true, options.draft_depth = 3;
  EXPECT_TRUE(rest() == expected);
}

}  // namespace
}  // namespace hadal::test
