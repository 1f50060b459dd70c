// Requests through the engine's C ABI give the tokens, log-probabilities and texts that each gets
// alone from the C++ classes.
#include <gtest/gtest.h>

#include <deque>

#include "support/capi_engine.h"

namespace hadal::test {
namespace {

class CapiEngineTokensGpu : public GpuTest {
 protected:
  hadal_error error_ = HADAL_ERROR_INIT;
};

// Random requests beside each other, and what each gets alone from the C++ classes.
void expect_as_alone(hadal_engine* engine, uint32_t requests, uint32_t seed) {
  Served single(8, 1, 256);
  ASSERT_TRUE(single.model.ok());
  auto generator = runtime::Generator::create(*device(), single.model.model(), single.model.cache(),
                                              single.pool);
  ASSERT_TRUE(generator.ok());
  auto tokenizer = model::Tokenizer::load(kFables);
  ASSERT_TRUE(tokenizer.ok());
  Random random(seed);
  std::deque<runtime::EngineRequest> made;
  std::deque<AbiRequest> asked;
  std::map<hadal_request_id, size_t> index;
  for (uint32_t i = 0; i < requests; ++i) {
    made.push_back(random_request(random, 256));
    asked.emplace_back(made.back());
    index[add_request(engine, asked.back().request)] = i;
  }
  const auto given = run_engine(engine);
  ASSERT_EQ(given.size(), requests);
  for (const auto& [id, got] : given) {
    SCOPED_TRACE(fmt::format("request {}", index.at(id)));
    const runtime::EngineRequest& request = made[index.at(id)];
    const Given expected = alone(*generator, request);
    EXPECT_EQ(got.given.ids, expected.ids);
    EXPECT_TRUE(got.given.logprobs == expected.logprobs);
    EXPECT_EQ(got.status, HADAL_OK) << got.message;
    EXPECT_EQ(got.text, *tokenizer->decode(expected.ids));
    const auto& stops = request.stop_ids;
    const bool stopped = std::find(stops.begin(), stops.end(), expected.ids.back()) != stops.end();
    EXPECT_EQ(got.finish, uint32_t{stopped ? HADAL_FINISH_STOP : HADAL_FINISH_LENGTH});
  }
}

TEST_F(CapiEngineTokensGpu, TokensAreThoseOfTheEngine) {
  const EnginePtr engine = load_engine(engine_options());
  ASSERT_TRUE(engine);
  expect_as_alone(engine.get(), 10, 21);
}

TEST_F(CapiEngineTokensGpu, TokensAreThoseOfTheEngineInFewPagesWithGuesses) {
  hadal_engine_options o = engine_options(6);
  o.flags = HADAL_ENGINE_SPECULATE | HADAL_ENGINE_ALWAYS_DRAFT | HADAL_ENGINE_ALWAYS_SWAP;
  o.draft_source = HADAL_DRAFT_BOTH, o.draft_depth = 2;
  o.swap_bytes = 8 << 20, o.read_ahead_bytes = 1 << 20;
  const EnginePtr engine = load_engine(o);
  ASSERT_TRUE(engine);
  expect_as_alone(engine.get(), 10, 22);
  auto stats = abi<hadal_engine_stats>();
  ASSERT_EQ(hadal_engine_statistics(engine.get(), &stats, &error_), HADAL_OK) << error_.message;
  EXPECT_GT(stats.accepted_drafts, 0u);
  EXPECT_LT(stats.accepted_drafts, stats.verified_drafts);
  EXPECT_EQ(stats.decoded_tokens, stats.decoded_requests + stats.accepted_drafts);
  EXPECT_GT(stats.swapped_in_pages, 0u);
  EXPECT_EQ(stats.pages, 6u);
  EXPECT_EQ(stats.pages, stats.pages_free + stats.pages_cached + stats.pages_used);
  EXPECT_EQ(stats.waiting + stats.running + stats.failed_requests, 0u);
  EXPECT_GT(stats.steps, 0u);
  EXPECT_GE(stats.step_seconds, stats.wait_seconds);
}

}  // namespace
}  // namespace hadal::test
