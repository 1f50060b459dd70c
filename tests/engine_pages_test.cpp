// What an engine's requests write: never to a page that others share, never behind the context.
#include <gtest/gtest.h>

#include "support/gpu.h"
#include "support/outcomes.h"
#include "support/served_model.h"

namespace hadal::test {
namespace {

using runtime::Engine;
using runtime::EngineOptions;
using runtime::EngineRequest;
using runtime::FinishReason;
using runtime::kPageTokens;

class EnginePagesGpu : public GpuTest {};

// All layers' rows of these pages, the MTP layer's among them.
std::vector<std::byte> rows_of(const runtime::KvCache& cache, std::span<const uint32_t> pages) {
  const uint64_t page_bytes = kPageTokens * cache.row_bytes();
  std::vector<std::byte> all;
  for (uint32_t layer = 0; layer < cache.layers(); ++layer) {
    for (const uint32_t page : pages) {
      const uint64_t at = layer * cache.view().layer_stride_bytes + page * page_bytes;
      all.resize(all.size() + page_bytes);
      const Status status = device()->download(cache.buffer(), at, std::span(all).last(page_bytes));
      EXPECT_TRUE(status.ok()) << status.message();
    }
  }
  return all;
}

// A prompt's whole pages keep their bytes while requests generate behind them, those that filled
// them and those that took them over: tokens and guesses, right and wrong ones, go to pages of
// their own. Prompts that end with a page and in the middle of one.
TEST_F(EnginePagesGpu, NoGuessReachesASharedPage) {
  for (const uint32_t length : {2 * kPageTokens, 2 * kPageTokens + 5}) {
    SCOPED_TRACE(length);
    Served served(24, 16, 256);
    ASSERT_TRUE(served.model.ok());
    EngineOptions options;
    options.speculate = options.always_draft = true, options.draft_depth = 3;
    options.max_requests = 4;
    Engine engine = served.engine(options);
    const EngineRequest first = request(length, 5, 30);
    Outcomes outcomes;
    std::vector<runtime::RequestId> ids = {*engine.add(first)};
    while (outcomes[ids[0]].ids.empty()) step(engine, outcomes);

    std::vector<uint32_t> prompt = first.prompt;
    prompt.resize(2 * kPageTokens);
    const std::vector<uint32_t> shared = served.pool.match(prompt, false);  // holds them
    ASSERT_EQ(shared.size(), 2u);
    const std::vector<std::byte> before = rows_of(served.model.cache(), shared);

    ids.push_back(*engine.add(first));
    ids.push_back(*engine.add(request(2 * kPageTokens + 20, 5, 20)));
    EngineRequest sampled = request(2 * kPageTokens + 1, 5, 25);
    sampled.sampling.temperature = 1.0f;  // many wrong guesses
    ids.push_back(*engine.add(sampled));
    while (!engine.idle()) {
      step(engine, outcomes);
      ASSERT_FALSE(HasFatalFailure());
      ASSERT_TRUE(rows_of(served.model.cache(), shared) == before)
          << "after step " << engine.stats().steps;
    }
    const runtime::EngineStats stats = engine.stats();
    // One that is as long as the pages computes its last one itself.
    EXPECT_GE(stats.scheduler.reused_tokens, 5 * kPageTokens);
    EXPECT_GT(stats.accepted_drafts, 0u);
    EXPECT_GT(stats.verified_drafts, stats.accepted_drafts);
    EXPECT_EQ(outcomes[ids[0]].ids, outcomes[ids[1]].ids);
    served.pool.give_back(shared);
    EXPECT_EQ(served.pool.stats().used, 0u);
  }
}

// Requests end by length exactly with the context, where guesses of every depth would reach over
// it: the tokens are those without guesses.
TEST_F(EnginePagesGpu, GuessesEndWithTheContext) {
  constexpr uint32_t kContext = 128;
  Served served(4, 9, kContext);  // with pages that a guess could be given
  ASSERT_TRUE(served.model.ok());
  const EngineRequest whole = request(kContext - 20, 5, 1000);
  Engine plain = served.engine({});
  const std::vector<uint32_t> expected = tokens_of(plain, whole);
  EXPECT_EQ(expected.size(), 20u);
  for (const uint32_t depth : {1u, 3u, 8u}) {
    SCOPED_TRACE(depth);
    EngineOptions options;
    options.speculate = options.always_draft = true, options.draft_depth = depth;
    Engine engine = served.engine(options);
    EXPECT_EQ(tokens_of(engine, whole), expected);
    EXPECT_GT(engine.stats().verified_drafts, 0u);
    EXPECT_EQ(served.pool.stats().used, 0u);
  }
}

}  // namespace
}  // namespace hadal::test
