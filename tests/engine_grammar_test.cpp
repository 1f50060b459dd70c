// JSON grammars in the engine: requests end with documents of their schemas, and alone, in company,
// guessed, preempted and computed again with the same tokens.
#include <gtest/gtest.h>

#include <map>

#include "support/golden.h"
#include "support/json_grammar.h"
#include "support/served_model.h"

namespace hadal::test {
namespace {

// What the small model, which writes fables, is to fill in.
const std::vector<std::string>& schemas() {
  static const std::vector<std::string> all = {
      R"({"type":"object","properties":{"hero":{"enum":["fox","king","crow"]},"age":{"type":"integer","minimum":1,"maximum":99},
          "moral":{"type":"string","minLength":10,"maxLength":60}},"required":["hero","age","moral"],"additionalProperties":false})",
      R"({"type":"array","items":{"type":"string","maxLength":20},"minItems":3,"maxItems":5})",
      R"({"anyOf":[{"type":"object","properties":{"kind":{"const":"a"},"day":{"type":"string","format":"date"}},"required":["kind","day"]},
          {"type":"object","properties":{"kind":{"const":"b"},"list":{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":4}},
           "required":["kind","list"]}]})",
      R"({"type":"object","properties":{"text":{"type":"string","pattern":"^[A-Z][a-z ]{5,40}\\.$"},"score":{"type":"number","minimum":0,"maximum":1}},
          "required":["text","score"]})"};
  return all;
}

class EngineGrammarGpu : public GpuTest {
 protected:
  static runtime::EngineRequest request(const model::Tokenizer& tokenizer, size_t schema,
                                        uint64_t seed) {
    runtime::EngineRequest request;
    request.prompt = load_golden("fables_king").ids;
    request.prompt.resize(30 + 5 * schema);
    request.max_new_tokens = 250;
    request.stop_ids = {*tokenizer.eos_id()};
    request.sampling.temperature = seed == 0 ? 0.0f : 1.0f, request.sampling.seed = seed;
    // No space that the model could fill its context with.
    const auto grammar = runtime::JsonGrammar::compile(schemas()[schema], tokenizer, {}, {1});
    EXPECT_TRUE(grammar.ok()) << grammar.status().message();
    request.mask = (*grammar)->mask();
    return request;
  }

  // All of `requests` at once: the tokens of each, which ended by its end token.
  static std::vector<std::vector<uint32_t>> run(
      runtime::Engine& engine, const std::vector<runtime::EngineRequest>& requests) {
    std::map<runtime::RequestId, size_t> places;
    for (size_t i = 0; i < requests.size(); ++i) {
      const auto id = engine.add(requests[i]);
      EXPECT_TRUE(id.ok()) << id.status().message();
      if (id.ok()) places[*id] = i;
    }
    std::vector<std::vector<uint32_t>> all(requests.size());
    while (!engine.idle()) {
      const auto tokens = engine.step();
      EXPECT_TRUE(tokens.ok()) << tokens.status().message();
      if (!tokens.ok()) break;
      for (const runtime::EngineToken& token : *tokens) {
        if (token.has_token) all[places[token.request]].push_back(token.id);
        if (token.finish == runtime::FinishReason::kNone) continue;
        EXPECT_EQ(token.finish, runtime::FinishReason::kStop) << token.status.message();
      }
    }
    EXPECT_EQ(engine.stats().pages.used, 0u);
    return all;
  }
};

TEST_F(EngineGrammarGpu, TokensAreDocumentsAndTheSameInEverySchedule) {
  const auto tokenizer = model::Tokenizer::load(kFables);
  ASSERT_TRUE(tokenizer.ok());
  std::vector<runtime::EngineRequest> requests;
  for (const uint64_t seed : {0, 5}) {
    for (size_t s = 0; s < schemas().size(); ++s) requests.push_back(request(*tokenizer, s, seed));
  }
  std::vector<std::vector<uint32_t>> expected;
  {
    Served served(8, 4, 512);
    ASSERT_TRUE(served.model.ok());
    runtime::Engine engine = served.engine({});
    for (const runtime::EngineRequest& one : requests) expected.push_back(run(engine, {one})[0]);
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_FALSE(expected[i].empty());
    EXPECT_EQ(expected[i].back(), *tokenizer->eos_id());
    const std::string text = *tokenizer->decode(expected[i]);
    const OrderedJson schema = OrderedJson::parse(schemas()[i % schemas().size()]);
    const auto value = OrderedJson::parse(text, nullptr, false);
    ASSERT_FALSE(value.is_discarded()) << text;
    EXPECT_TRUE(satisfies(schema, value, schema)) << text;
  }
  // Guesses; then more requests than the cache has pages for, each mask going on with its own
  // spans.
  for (const bool speculate : {true, false}) {
    Served served(speculate ? 24 : 5, 8, 512);
    ASSERT_TRUE(served.model.ok());
    runtime::EngineOptions options;
    options.speculate = options.always_draft = speculate, options.draft_depth = 2;
    options.draft_source = runtime::DraftSource::kBoth;
    runtime::Engine engine = served.engine(options);
    EXPECT_EQ(run(engine, requests), expected) << "speculate " << speculate;
    const runtime::EngineStats stats = engine.stats();
    EXPECT_EQ(stats.verified_drafts > 0, speculate);
    EXPECT_EQ(stats.scheduler.preemptions > 0, !speculate);
  }
}

}  // namespace
}  // namespace hadal::test
