// Schemas of those who mean harm: they are refused or compiled, soon, and masks of compiled ones
// never lead to a dead end.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "fuzz/parsers.h"
#include "support/fuzz.h"
#include "support/json_grammar.h"

namespace hadal::test {
namespace {

int compiled(const std::string& schema) {
  const fuzz::Outcome outcome =
      fuzz::json_schema({reinterpret_cast<const uint8_t*>(schema.data()), schema.size()});
  EXPECT_EQ(outcome.fault, "");
  return outcome.accepted;
}

std::string repeated(const std::string& text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

std::string message(const std::string& schema) {
  const auto grammar = runtime::JsonGrammar::compile(schema, vocabulary_of(byte_tokens()));
  return grammar.ok() ? "" : grammar.status().message();
}

std::string with_pattern(const std::string& pattern) {
  return OrderedJson{{"type", "string"}, {"pattern", pattern}}.dump();
}

TEST(JsonGrammarFuzz, LimitsAreSaid) {
  const auto expect = [](const std::string& schema, const std::string& text) {
    const std::string said = message(schema);
    EXPECT_NE(said.find(text), std::string::npos) << said;
    EXPECT_LT(said.size(), 400u);
  };
  expect(std::string(200000, ' ') + "{}", "text must have at most 131072 bytes, got 200002");
  expect(repeated("{\"items\":", 70) + "{}" + repeated("}", 70),
         "nesting must be at most 64 levels, got more");
  expect(std::string(70000, '['), "nesting must be at most 64 levels, got more");
  expect(with_pattern("(((a{1000}){1000}){1000}){1000}"),
         "it must have at most 4096 states, repetitions counted out");
  expect(with_pattern("(){4294967295}"), "it must have at most 4096 states");
  expect(with_pattern("(a|b)*a(a|b){20}"), "its deterministic form must have at most");
  expect(with_pattern(repeated("(", 100)), "groups must be at most 64 deep");
  expect(R"({"type":"string","pattern":"^(ab)*$","maxLength":1000000000})",
         "lengths times states of the pattern");
  // A chain of definitions, each twice the one before.
  OrderedJson doubling = {{"$defs", {{"d0", {{"properties", {{"a", true}}}}}}},
                          {"$ref", "#/$defs/d28"}};
  for (int i = 1; i <= 28; ++i) {
    const OrderedJson before = {{"$ref", fmt::format("#/$defs/d{}", i - 1)}};
    doubling["$defs"][fmt::format("d{}", i)] = {
        {"allOf", {before, before, {{"required", {fmt::format("r{}", i)}}}}}};
  }
  expect(doubling.dump(), "schemas must repeat less of one another");
  expect(R"({"allOf":[{"$ref":"#"}]})", "$ref and allOf must be at most 64 deep");
  expect(
      R"({"$defs":{"a":{"$ref":"#/$defs/b","type":"null"},"b":{"$ref":"#/$defs/a","type":"null"}},"$ref":"#/$defs/a"})",
      "$ref and allOf must be at most 64 deep");
  // Choices among choices, all of them again in each.
  const auto nested = [](int count, const std::function<OrderedJson(int)>& choice) {
    OrderedJson schema = {{"$ref", "#/$defs/c0"}};
    for (int i = 0; i < count; ++i) {
      const OrderedJson next = {{"$ref", fmt::format("#/$defs/c{}", (i + 1) % count)}};
      schema["$defs"][fmt::format("c{}", i)] = {
          {"anyOf", {choice(2 * i), choice(2 * i + 1), next}}};
    }
    return schema.dump();
  };
  const auto list = [](int i) { return OrderedJson{{"type", "array"}, {"maxItems", i}}; };
  const auto word = [](int i) { return OrderedJson{{"const", fmt::format("a word and {}", i)}}; };
  expect(nested(190, list), "choices must be at most 256 of one schema");
  expect(nested(100, word), "constants must have at most 524288 bytes");
  expect(nested(250, word), "schemas must be at most 400 deep");
}

TEST(JsonGrammarFuzz, ManyConstantsAreOneChoice) {
  OrderedJson schema = {{"anyOf", OrderedJson::array()}};
  for (int i = 0; i < 2000; ++i) schema["anyOf"].push_back({{"const", i}});
  EXPECT_EQ(message(schema.dump()), "");
}

TEST(JsonGrammarFuzz, HugeCountsCostNothing) {
  EXPECT_EQ(compiled(R"({"type":"string","minLength":1000000000,"maxLength":1e300})"), 1);
  EXPECT_EQ(
      compiled(
          R"({"type":"array","minItems":4294967296,"maxItems":9007199254740993,"items":{"const":1}})"),
      1);
  EXPECT_EQ(compiled(R"({"type":"integer","minimum":-1e400,"maximum":1e30})"),
            0);  // no number of C++
  EXPECT_EQ(
      compiled(
          R"({"type":"integer","minimum":-1e300,"maximum":1e30,"multipleOf":9223372036854775807})"),
      1);
}

// Readings that double with each level of nesting share their tops: 2^60 of them are walked.
TEST(JsonGrammarFuzz, AmbiguityDoesNotMultiply) {
  const std::string schema =
      R"({"$defs":{"x":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/x"},"maxItems":3},
      {"type":"array","items":{"$ref":"#/$defs/x"},"maxItems":4},{"type":"object","additionalProperties":{"$ref":"#/$defs/x"}},
      {"type":"object","properties":{"a":{"$ref":"#/$defs/x"}}}]}},"$ref":"#/$defs/x"})";
  const auto grammar = runtime::JsonGrammar::compile(schema, vocabulary_of(byte_tokens()));
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  std::string text;
  for (int i = 0; i < 60; ++i) text += i % 3 ? "[" : "{\"a\":";
  text += "[]";
  for (int i = 60; i-- > 0;) text += i % 3 ? "]" : "}";
  const runtime::TokenMask mask = (*grammar)->mask();
  std::vector<uint32_t> ids;
  for (const char c : text) {
    ASSERT_TRUE(allowed(mask, ids, 257)[1 + size_t(uint8_t(c))]) << ids.size();
    ids.push_back(1 + uint8_t(c));
  }
  EXPECT_TRUE(allowed(mask, ids, 257)[0]);
}

std::string mutate(std::string text, std::mt19937& random) {
  static const char* const kPieces[] = {"\"$ref\":\"#\"",
                                        "\"anyOf\":[",
                                        "\"allOf\":[",
                                        "\"oneOf\":[",
                                        "\"items\":",
                                        "\"properties\":{",
                                        "\"required\":[\"a\"]",
                                        "\"maxLength\":3",
                                        "\"minItems\":2",
                                        "\"pattern\":\"",
                                        "1e99",
                                        "-0.5",
                                        "{}",
                                        "true",
                                        "false",
                                        "null",
                                        "[",
                                        "]",
                                        "}",
                                        ",",
                                        "\"type\":\"object\",",
                                        "\"type\":[\"string\",\"integer\"],",
                                        "\"enum\":[1,\"a\"]",
                                        "\\u0041",
                                        "(a|b)*",
                                        "[^a]",
                                        "{2,5}"};
  for (size_t n = 1 + random() % 3; n > 0; --n) {
    const size_t at = random() % (text.size() + 1);
    switch (random() % 4) {
      case 0: text.insert(at, kPieces[random() % std::size(kPieces)]); break;
      case 1: text.erase(at, 1 + random() % 12); break;
      case 2: text.insert(at, text.substr(random() % (text.size() + 1), 1 + random() % 60)); break;
      default:
        if (at < text.size()) text[at] = "0123456789{}[],:\"-e\\.*+?|()^$a"[random() % 31];
    }
  }
  return text;
}

TEST(JsonGrammarFuzz, MutatedSchemasNeverCrash) {
  const std::vector<std::string> seeds = {
      R"({"type":"object","properties":{"a":{"type":"string","minLength":1,"maxLength":8},"b":{"type":"array","items":{"type":"integer","minimum":-5,"maximum":1000}}},"required":["a"],"additionalProperties":{"type":"null"}})",
      R"({"$defs":{"n":{"anyOf":[{"type":"null"},{"type":"object","properties":{"v":{"enum":[1,"x",[true]]},"next":{"$ref":"#/$defs/n"}},"required":["next"]}]}},"$ref":"#/$defs/n"})",
      R"j({"type":"string","pattern":"^(?:a|bc){1,3}[^x-z\\d]+\\.$"})j",
      R"({"allOf":[{"type":"number","minimum":0.25},{"exclusiveMaximum":7.5}]})",
      R"({"oneOf":[{"type":"string","format":"date-time"},{"type":"array","prefixItems":[{"const":"k"},{"type":"boolean"}],"items":false,"minItems":1}]})",
      R"({"properties":{"a":{"$ref":"#/properties/b"},"b":{"type":["integer","string"],"multipleOf":3}},"required":["c"]})",
      "{}",
      "true",
      ""};
  std::mt19937 random(77);
  int whole = 0, rounds_done = 0;
  for (const std::string& seed : seeds) EXPECT_EQ(compiled(seed), 1) << seed;
  for (hadal::testing::FuzzRounds rounds(6000); rounds.next(); ++rounds_done) {
    const std::string schema = mutate(seeds[random() % seeds.size()], random);
    SCOPED_TRACE(schema);
    whole += compiled(schema);
  }
  EXPECT_GT(whole, rounds_done / 50);  // mutations reach behind the parser
}

}  // namespace
}  // namespace hadal::test
