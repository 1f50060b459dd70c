// The engine on the small checkpoint: whoever shares the steps, the tokens are those of each
// request alone.
#include "hadal/runtime/engine.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "support/engine.h"

namespace hadal::test {
namespace {

class EngineGpu : public GpuTest {};

TEST_F(EngineGpu, WhoSharesTheStepsChangesNoToken) {
  (void)expect_tokens_as_alone({});
}

void expect_speculation_changes_no_token(runtime::DraftSource source, uint32_t depth) {
  SCOPED_TRACE(fmt::format("source {}, depth {}", int(source), depth));
  runtime::EngineOptions options;
  options.speculate = options.always_draft = true;
  options.draft_source = source, options.draft_depth = depth;
  const runtime::EngineStats stats = expect_tokens_as_alone(options);
  EXPECT_GT(stats.accepted_drafts, 0u);
  EXPECT_LT(stats.accepted_drafts, stats.verified_drafts);
  EXPECT_EQ(stats.decoded_tokens, stats.decoded_requests + stats.accepted_drafts);
  // The others are replays.
  EXPECT_GE(stats.decoded_rows, stats.decoded_requests + stats.verified_drafts);
  const runtime::RecordingStats& drafts = stats.draft_recordings;
  if (source == runtime::DraftSource::kNgram) {
    EXPECT_EQ(drafts.recorded + drafts.replayed, 0u);
  } else {
    EXPECT_GT(drafts.replayed, 0u);
  }
}

// Every source; the slow test has every depth.
TEST_F(EngineGpu, SpeculationChangesNoToken) {
  using runtime::DraftSource;
  expect_speculation_changes_no_token(DraftSource::kMtp, 1);
  expect_speculation_changes_no_token(DraftSource::kNgram, 2);
  expect_speculation_changes_no_token(DraftSource::kBoth, 4);
}

TEST_F(EngineGpu, SlowSpeculationOfAnyDepthChangesNoToken) {
  if (!std::getenv("HADAL_TEST_ALL")) GTEST_SKIP() << "one of the slow tests, HADAL_TEST_ALL=1";
  using runtime::DraftSource;
  for (const DraftSource source : {DraftSource::kMtp, DraftSource::kNgram, DraftSource::kBoth}) {
    for (const uint32_t depth : {1, 2, 3, 4, 8}) expect_speculation_changes_no_token(source, depth);
  }
}

TEST_F(EngineGpu, SpeculationNeedsTheMtpLayer) {
  TestModelOptions o = Served::options(4, 2, 128);
  o.load.load_mtp = false;
  TestModel model(kFables, o);
  ASSERT_TRUE(model.ok());
  runtime::EngineOptions options;
  options.max_rows = 2, options.max_chunk = 64, options.speculate = true;
  EXPECT_EQ(runtime::Engine::create(*device(), model.model(), model.cache(), model.pages(), options)
                .status()
                .code(),
            Errc::kUnsupported);
}

// Pages of a prompt that an engine filled which does not draft lack the MTP layer's rows: one that
// does takes none of them over. Look-up needs no rows.
TEST_F(EngineGpu, PagesWithoutRowsOfTheMtpLayerAreNotTakenOver) {
  Served served(8, 2, 256);
  ASSERT_TRUE(served.model.ok());
  const auto reused = [&](bool speculate, runtime::DraftSource source) {
    runtime::EngineOptions options;
    options.speculate = speculate, options.draft_source = source;
    runtime::Engine engine = served.engine(options);
    const uint64_t before = engine.stats().scheduler.reused_tokens;
    runtime::EngineRequest request;
    request.prompt.assign(runtime::kPageTokens + 6, 5), request.max_new_tokens = 2;
    EXPECT_TRUE(engine.add(request).ok());
    while (!engine.idle()) EXPECT_TRUE(engine.step().ok());
    return engine.stats().scheduler.reused_tokens - before;
  };
  EXPECT_EQ(reused(false, runtime::DraftSource::kMtp), 0u);
  EXPECT_EQ(reused(false, runtime::DraftSource::kMtp), runtime::kPageTokens);
  EXPECT_EQ(reused(true, runtime::DraftSource::kNgram), runtime::kPageTokens);
  EXPECT_EQ(reused(true, runtime::DraftSource::kMtp), 0u);
  EXPECT_EQ(reused(false, runtime::DraftSource::kMtp), runtime::kPageTokens);
}

TEST_F(EngineGpu, EndsByLengthContextAndStop) {
  Served served(8, 2, 128);
  ASSERT_TRUE(served.model.ok());
  runtime::Engine engine = served.engine({});
  EXPECT_TRUE(engine.step()->empty());
  runtime::EngineRequest request;
  request.prompt = std::vector<uint32_t>(125, 5), request.max_new_tokens = 100;
  const auto run = [&] {
    const auto id = engine.add(request);
    EXPECT_TRUE(id.ok());
    std::vector<runtime::EngineToken> all;
    while (!engine.idle()) {
      const auto tokens = engine.step();
      all.insert(all.end(), tokens->begin(), tokens->end());
    }
    return all;
  };
  std::vector<runtime::EngineToken> tokens = run();
  ASSERT_EQ(tokens.size(), 3u);  // the context ends
  EXPECT_EQ(tokens[2].finish, runtime::FinishReason::kLength);
  request.stop_ids = {tokens[1].id};
  if (tokens[0].id == tokens[1].id) GTEST_SKIP() << "the model repeats itself";
  tokens = run();
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[1].finish, runtime::FinishReason::kStop);
  EXPECT_EQ(tokens[0].finish, runtime::FinishReason::kNone);
}

TEST_F(EngineGpu, PenaltiesBiasesAndMasksReachTheTokens) {
  Served served(8, 4, 128);
  ASSERT_TRUE(served.model.ok());
  runtime::Engine engine = served.engine({});
  runtime::EngineRequest plain;
  plain.prompt = load_golden("fables_king").ids, plain.max_new_tokens = 20;
  plain.prompt.resize(20), plain.logprobs = 3;
  runtime::EngineRequest biased = plain, masked = plain, penalised = plain, failing = plain;
  biased.sampling.logit_bias = {{77, 100.0f}};
  masked.mask = [](std::span<const uint32_t> generated, std::span<uint32_t> bits) {
    bits[3] = 1u << generated.size() % 32;  // 96, 97, ...
    return true;
  };
  penalised.sampling.frequency_penalty = penalised.sampling.presence_penalty = 2.0f;
  failing.mask = [](std::span<const uint32_t> generated, std::span<uint32_t>) {
    if (generated.size() == 5) throw std::runtime_error("no rule");
    return false;
  };
  std::map<runtime::RequestId, Given> got;
  std::vector<runtime::RequestId> ids;
  for (const auto& request : {plain, biased, masked, penalised})
    ids.push_back(*engine.add(request));
  const runtime::RequestId failed = *engine.add(failing);
  runtime::EngineToken failure;  // the last of its entries
  while (!engine.idle()) {
    const auto tokens = engine.step();
    ASSERT_TRUE(tokens.ok()) << tokens.status().message();
    for (const runtime::EngineToken& token : *tokens) {
      if (token.has_token) got[token.request].ids.push_back(token.id);
      if (token.request == failed) failure = token;
      EXPECT_TRUE(token.status.ok() || token.request == failed);
      if (token.logprobs) got[token.request].logprobs.push_back(*token.logprobs);
    }
  }
  for (const runtime::RequestId id : ids) {
    ASSERT_EQ(got[id].ids.size(), 20u);
    ASSERT_EQ(got[id].logprobs.size(), 20u);
  }
  for (uint32_t i = 0; i < 20; ++i) {
    // Greedy: the chosen token is the most probable one.
    const runtime::TokenLogprobs& logprobs = got[ids[0]].logprobs[i];
    EXPECT_EQ(logprobs.top.size(), 3u);
    EXPECT_EQ(logprobs.top[0], (runtime::TokenLogprob{got[ids[0]].ids[i], logprobs.chosen}));
    EXPECT_GT(logprobs.top[0].logprob, logprobs.top[2].logprob);
    EXPECT_EQ(got[ids[1]].ids[i], 77u);
    EXPECT_EQ(got[ids[2]].ids[i], 96 + i);
    // Of the logits as the model gave them: what a bias forces stays improbable.
    EXPECT_LT(got[ids[1]].logprobs[i].chosen, got[ids[1]].logprobs[i].top[0].logprob);
  }
  EXPECT_EQ(got[ids[1]].logprobs[0].top, got[ids[0]].logprobs[0].top);
  EXPECT_NE(got[ids[3]].ids, got[ids[0]].ids);
  const std::vector<uint32_t> before(got[ids[0]].ids.begin(), got[ids[0]].ids.begin() + 5);
  EXPECT_EQ(got[failed].ids, before);
  EXPECT_EQ(failure.finish, runtime::FinishReason::kFailed);
  EXPECT_FALSE(failure.has_token);
  EXPECT_EQ(failure.status.message(), "sampling: the mask must not throw, got \"no rule\"");
  EXPECT_EQ(engine.stats().pages.used, 0u);
}

TEST_F(EngineGpu, RefusesByName) {
  Served served(2, 2, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::Engine engine = served.engine({});
  const auto message = [&](runtime::EngineRequest request) {
    const auto id = engine.add(request);
    return id.status().message();
  };
  runtime::EngineRequest request;
  EXPECT_EQ(message(request), "scheduler: the prompt must have at least one token, got 0");
  request.prompt = {1, 100000};
  EXPECT_NE(message(request).find("engine: token ids must be below"), std::string::npos);
  request.prompt.assign(256, 1);
  EXPECT_EQ(message(request),
            "engine: the prompt must be shorter than the context of 256 tokens, got 256");
  request.prompt.assign(100, 1);
  EXPECT_EQ(message(request), "scheduler: 4 pages are needed, the cache has 2");
  request.sampling.top_p = 0.0f;
  EXPECT_NE(message(request).find("top_p"), std::string::npos);
  request.sampling = {};
  request.sampling.logit_bias = {{1000000, 1.0f}};
  EXPECT_NE(message(request).find("sampling: ids of logit_bias must be below"), std::string::npos);
  request.sampling = {}, request.logprobs = 21;
  EXPECT_EQ(message(request), "engine: logprobs must be at most 20, got 21");
  engine.cancel(12345);
  EXPECT_TRUE(engine.idle());
  runtime::EngineOptions options;
  options.max_rows = 3;
  EXPECT_EQ(runtime::Engine::create(*device(), served.model.model(), served.model.cache(),
                                    served.pool, options)
                .status()
                .message(),
            "engine: max_rows must be 1 to the model's 2, got 3");
}

}  // namespace
}  // namespace hadal::test
