#include "support/engine.h"

#include <map>

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

}  // namespace

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

Given alone(runtime::Generator& generator, const runtime::EngineRequest& request) {
  runtime::GenerateOptions options;
  options.max_new_tokens = request.max_new_tokens;
  options.sampling = request.sampling, options.stop_ids = request.stop_ids;
  options.logprobs = request.logprobs, options.mask = request.mask;
  auto result = generator.generate(request.prompt, options);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? Given{result->ids, result->logprobs} : Given{};
}

namespace {

constexpr uint32_t kContext = 256;
constexpr uint32_t kMostRequests = 40;

// What the first random requests get alone: the same for every engine, so computed once.
struct Alone {
  std::vector<runtime::EngineRequest> requests;
  std::vector<Given> given;
};
const Alone& some_alone() {
  static const Alone alone_of_each = [] {
    Alone result;
    Served single(8, 1, kContext);
    if (!single.model.ok()) return result;
    auto generator = runtime::Generator::create(*device(), single.model.model(),
                                                single.model.cache(), single.pool);
    if (!generator.ok()) return result;
    Random random(6);
    for (uint32_t i = 0; i < kMostRequests; ++i) {
      result.requests.push_back(random_request(random, kContext));
      result.given.push_back(alone(*generator, result.requests.back()));
    }
    return result;
  }();
  return alone_of_each;
}

}  // namespace

runtime::EngineStats expect_tokens_as_alone(runtime::EngineOptions options, uint32_t requests) {
  const Alone& known = some_alone();
  EXPECT_LE(requests, known.given.size());
  Served many(6, 6, kContext);
  if (requests > known.given.size() || !many.model.ok()) return {};
  options.aging_steps = 20, options.step_seconds = 0.005;
  runtime::Engine engine = many.engine(options);
  Random random(5);
  std::map<runtime::RequestId, Given> expected, got;
  std::map<runtime::RequestId, runtime::FinishReason> finished;
  uint32_t made = 0, cancelled = 0;
  while (made < requests || !engine.idle()) {
    while (made < requests && random.below(3)) {
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

}  // namespace hadal::test
