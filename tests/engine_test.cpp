// The engine on the small checkpoint: whoever shares the steps, the tokens are those of each
// request alone.
#include "hadal/runtime/engine.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "support/golden.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/served_model.h"

namespace hadal::test {
namespace {

// Forbids about a third of the tokens, others after each token, and sometimes none: a function of
// the generated tokens, as the rules ask.
bool changing_mask(std::span<const uint32_t> generated, std::span<uint32_t> bits) {
  const uint32_t last = generated.empty() ? 1 : generated.back(),
                 count = uint32_t(generated.size());
  if ((last + count) % 7 == 3) return false;
  Random random(last * 1000 + count);
  for (uint32_t& word : bits) word = random.bits() | random.bits();
  bits[0] |= 1u << 5;
  return true;
}

void random_sampling(Random& random, runtime::EngineRequest& request) {
  auto& sampling = request.sampling;
  if (random.below(2)) {
    sampling.temperature = 0.8f, sampling.top_p = 0.9f;
    sampling.seed = random.below(1000);
  }
  if (random.below(3) == 0) sampling.repetition_penalty = random.uniform(0.8f, 1.6f);
  if (random.below(3) == 0) sampling.presence_penalty = random.uniform(-1.0f, 2.0f);
  if (random.below(3) == 0) sampling.frequency_penalty = random.uniform(-0.2f, 2.0f);
  if (random.below(3) == 0) {
    for (uint32_t i = 0; i < 30; ++i) {
      sampling.logit_bias.push_back({i * 16 + random.below(16), random.uniform(-4.0f, 4.0f)});
    }
  }
  if (random.below(3) == 0) request.mask = changing_mask;
  if (random.below(2)) request.logprobs = random.below(21);
}

runtime::EngineRequest random_request(Random& random, uint32_t context) {
  runtime::EngineRequest request;
  const uint32_t length = 1 + random.below(random.below(2) ? 40 : 150);
  const uint32_t beginning = random.below(2);
  for (uint32_t i = 0; i < length; ++i) {
    request.prompt.push_back(i < 100 ? 3 + (i * 7 + beginning) % 400 : random.below(500));
  }
  request.max_new_tokens = 1 + random.below(std::min(90u, context - length));
  random_sampling(random, request);
  if (random.below(3) == 0) request.stop_ids = {random.below(500), random.below(500)};
  request.priority = int32_t(random.below(3));
  return request;
}

// What a request gave.
struct Given {
  std::vector<uint32_t> ids;
  std::vector<runtime::TokenLogprobs> logprobs;
  bool operator==(const Given&) const = default;
};

Given alone(runtime::Generator& generator, const runtime::EngineRequest& request) {
  runtime::GenerateOptions options;
  options.max_new_tokens = request.max_new_tokens;
  options.sampling = request.sampling, options.stop_ids = request.stop_ids;
  options.logprobs = request.logprobs, options.mask = request.mask;
  auto result = generator.generate(request.prompt, options);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? Given{result->ids, result->logprobs} : Given{};
}

// What the first 40 random requests get alone: the same for every engine, so computed once.
struct Alone {
  std::vector<runtime::EngineRequest> requests;
  std::vector<Given> given;
};
const Alone& forty_alone(uint32_t context) {
  static const Alone alone_of_each = [context] {
    Alone result;
    Served single(8, 1, context);
    if (!single.model.ok()) return result;
    auto generator = runtime::Generator::create(*device(), single.model.model(),
                                                single.model.cache(), single.pool);
    if (!generator.ok()) return result;
    Random random(6);
    for (uint32_t i = 0; i < 40; ++i) {
      result.requests.push_back(random_request(random, context));
      result.given.push_back(alone(*generator, result.requests.back()));
    }
    return result;
  }();
  return alone_of_each;
}

// 40 requests in 6 pages, 6 at a time: preempted, replayed, with common prefixes, cancelled.
runtime::EngineStats expect_tokens_as_alone(runtime::EngineOptions options) {
  constexpr uint32_t kContext = 256;
  const Alone& known = forty_alone(kContext);
  EXPECT_EQ(known.given.size(), 40u);
  Served many(6, 6, kContext);
  if (known.given.size() != 40 || !many.model.ok()) return {};
  options.aging_steps = 20, options.step_seconds = 0.005;
  runtime::Engine engine = many.engine(options);
  Random random(5);
  std::map<runtime::RequestId, Given> expected, got;
  std::map<runtime::RequestId, runtime::FinishReason> finished;
  uint32_t made = 0, cancelled = 0;
  while (made < 40 || !engine.idle()) {
    while (made < 40 && random.below(3)) {
      const auto id = engine.add(known.requests[made]);
      EXPECT_TRUE(id.ok()) << id.status().message();
      expected[*id] = known.given[made];
      ++made;
    }
    if (random.below(20) == 0 && !expected.empty()) {
      const auto victim = std::next(expected.begin(), random.below(uint32_t(expected.size())));
      if (!finished.count(victim->first)) {
        engine.cancel(victim->first);
        got.erase(victim->first);
        expected.erase(victim), ++cancelled;
      }
    }
    const auto tokens = engine.step();
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    if (!tokens.ok()) return {};
    for (const runtime::EngineToken& token : *tokens) {
      EXPECT_FALSE(finished.count(token.request));
      EXPECT_TRUE(token.status.ok()) << token.status.message();
      if (!token.has_token) return {};
      got[token.request].ids.push_back(token.id);
      if (token.logprobs) got[token.request].logprobs.push_back(*token.logprobs);
      if (token.finish != runtime::FinishReason::kNone) finished[token.request] = token.finish;
    }
  }
  for (const auto& [id, given] : expected) {
    EXPECT_EQ(got[id].ids, given.ids) << "request " << id;
    EXPECT_TRUE(got[id].logprobs == given.logprobs) << "request " << id;
    EXPECT_TRUE(finished.count(id)) << id;
  }
  EXPECT_EQ(got.size(), expected.size());
  const runtime::EngineStats stats = engine.stats();
  EXPECT_GT(cancelled, 0u);
  EXPECT_GT(stats.scheduler.preemptions, 0u);
  EXPECT_GT(stats.scheduler.reused_tokens, 0u);
  EXPECT_EQ(stats.pages.used, 0u);
  return stats;
}

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
