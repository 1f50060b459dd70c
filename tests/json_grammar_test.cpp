// JSON grammars: what is refused and how it is said, merged schemas, spans that come and go,
// tokenizers, hostile schemas and mutated ones.
#include "hadal/runtime/json_grammar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "support/json_grammar.h"

namespace hadal::test {
namespace {

using runtime::JsonGrammar;

const std::shared_ptr<const runtime::GrammarVocabulary>& bytes() {
  static const auto vocabulary = vocabulary_of(byte_tokens());
  return vocabulary;
}

// What compiling says; empty: nothing.
std::string refusal(const std::string& schema) {
  const auto grammar = JsonGrammar::compile(schema, bytes());
  return grammar.ok() ? "" : grammar.status().message();
}

std::vector<uint32_t> ids_of(const std::string& text) {
  std::vector<uint32_t> ids;
  for (const char c : text) ids.push_back(1 + uint8_t(c));
  return ids;
}

// Whether the text is a document, byte by byte allowed.
bool is_document(const JsonGrammar& grammar, const std::string& text) {
  const runtime::TokenMask mask = grammar.mask();
  std::vector<uint32_t> ids;
  for (const uint32_t id : ids_of(text)) {
    if (!allowed(mask, ids, 257)[id]) return false;
    ids.push_back(id);
  }
  return allowed(mask, ids, 257)[0];
}

// Each text is a document exactly where the schema's definition says so.
void expect_documents(const std::string& schema, const std::vector<std::string>& texts,
                      size_t right) {
  SCOPED_TRACE(schema);
  const auto grammar = JsonGrammar::compile(schema, bytes());
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  const OrderedJson rules = OrderedJson::parse(schema);
  size_t found = 0;
  for (const std::string& text : texts) {
    const bool expected = satisfies(rules, OrderedJson::parse(text), rules);
    EXPECT_EQ(is_document(**grammar, text), expected) << text;
    found += expected;
  }
  EXPECT_EQ(found, right);  // the definition tells texts apart
}

TEST(JsonGrammarHost, RefusalsNameKeywordAndPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type":"array","contains":{}})",
       R"(json_schema: #/contains: keyword "contains" is not supported)"},
      {R"({"properties":{"a/b":{"properties":{"c~":{"not":{}}}}}})",
       R"(json_schema: #/properties/a~1b/properties/c~0/not: keyword "not" is not supported)"},
      {R"({"$defs":{"x":{"minProperties":1}},"items":{"$ref":"#/$defs/x"}})",
       R"(json_schema: #/$defs/x/minProperties: keyword "minProperties" is not supported)"},
      {R"({"anyOf":[{"type":"string"},{"patternProperties":{}}]})",
       R"(json_schema: #/anyOf/1/patternProperties: keyword "patternProperties" is not supported)"},
      {R"({"type":"text"})",
       R"(json_schema: #/type: it must name types of JSON Schema, got "text")"},
      {R"({"type":"string","format":"email"})",
       R"(json_schema: #/format: format must be date, time, date-time, uuid or ipv4, got "email")"},
      {R"j({"type":"string","pattern":"(?=a)"})j",
       R"(json_schema: #/pattern: pattern: look-around at byte 1 is not supported)"},
      {R"({"type":"string","pattern":"a(b"})",
       R"(json_schema: #/pattern: pattern: parentheses must match, got no ) at byte 3)"},
      {R"({"type":"string","pattern":"(a)\\1"})",
       R"(json_schema: #/pattern: pattern: \1 at byte 5 is not supported)"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})",
       "json_schema: #/oneOf: oneOf needs choices that exclude each other by type or by a required "
       "property's constants, got choices 0 and 1 (use anyOf)"},
      {R"({"allOf":[{"pattern":"a"},{"pattern":"b"}],"type":"string"})",
       "json_schema: #: pattern cannot be merged with another pattern (allOf, or beside $ref, "
       "anyOf "
       "and oneOf)"},
      {R"({"enum":["a"],"maxLength":3})",
       "json_schema: #/maxLength: keyword maxLength is not supported beside enum or const"},
      {R"({"type":"number","multipleOf":0.5})",
       "json_schema: #/multipleOf: multipleOf must be an integer beside the type integer, got 0.5"},
      {R"({"type":"array","minItems":-1})",
       "json_schema: #/minItems: it must be an integer from 0, got -1"},
      {R"({"type":"number","minimum":"0"})",
       R"(json_schema: #/minimum: it must be a number, got "0")"},
      {R"({"$ref":"other.json"})",
       R"(json_schema: #/$ref: $ref must be # or start with #/, got "other.json")"},
      {R"({"$ref":"#/$defs/none"})",
       R"(json_schema: #/$ref: $ref must lead to a part of this schema, got "#/$defs/none")"},
      {R"([1])", "json_schema: #: a schema must be an object or a boolean, got a list of 1"},
      {R"({"a)", "json_schema: #: text must be valid JSON, got an error at byte 4"},
      {R"({"type":"string","type":"null"})",
       R"(json_schema: #: every key must occur once in its object, got "type" twice)"},
      {"false", "json_schema: #: some document must satisfy it, got none that does"},
      {R"({"$ref":"#"})", "json_schema: #: some document must satisfy it, got none that does"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
       "json_schema: #: some document must satisfy it, got none that does"},
      {R"({"type":"integer","minimum":0.5,"maximum":0.75})",
       "json_schema: #: some document must satisfy it, got none that does"},
      {R"({"type":"string","pattern":"^a$","minLength":2})",
       "json_schema: #: some document must satisfy it, got none that does"},
      {R"({"type":"array","items":false,"minItems":1})",
       "json_schema: #: some document must satisfy it, got none that does"},
  };
  for (const auto& [schema, message] : cases) EXPECT_EQ(refusal(schema), message) << schema;
  // Every keyword of the specification that the table does not list, whatever its value.
  for (const char* keyword : {"uniqueItems",
                              "minContains",
                              "maxContains",
                              "maxProperties",
                              "propertyNames",
                              "if",
                              "then",
                              "else",
                              "dependentRequired",
                              "dependentSchemas",
                              "unevaluatedItems",
                              "unevaluatedProperties",
                              "additionalItems",
                              "dependencies",
                              "$anchor",
                              "$dynamicRef",
                              "$dynamicAnchor",
                              "contentEncoding",
                              "nullable",
                              "minlength"}) {
    const auto grammar = JsonGrammar::compile(OrderedJson{{keyword, true}}.dump(), bytes());
    ASSERT_FALSE(grammar.ok()) << keyword;
    EXPECT_EQ(grammar.status().code(), Errc::kUnsupported);
    EXPECT_NE(grammar.status().message().find(keyword), std::string::npos);
  }
}

TEST(JsonGrammarHost, AnnotationsChangeNothing) {
  expect_documents(
      R"({"$schema":"x","$id":"y","title":"t","description":"d","default":1,"examples":[2],"$comment":"c",
          "deprecated":true,"readOnly":true,"writeOnly":false,"type":"integer","minimum":3,"maximum":5})",
      {"2", "3", "5", "6", "\"3\""}, 2);
}

TEST(JsonGrammarHost, AllOfAndSiblingsAreMerged) {
  expect_documents(
      R"({"allOf":[{"type":"integer","minimum":2},{"type":"number","maximum":7}],"minimum":4})",
      {"1", "3", "4", "7", "8"}, 2);
  expect_documents(
      R"({"$defs":{"p":{"type":"object","properties":{"a":{"type":"integer"},"b":true},"required":["a"]}},
                       "allOf":[{"$ref":"#/$defs/p"},{"properties":{"b":{"type":"null"},"a":{"maximum":3,"minimum":0}},
                                                      "required":["b"]}]})",
      {R"({"a":1,"b":null})", R"({"a":4,"b":null})", R"({"a":1})", R"({"a":1,"b":2})"}, 1);
  // A property that one side does not list is under that side's additionalProperties.
  expect_documents(R"({"type":"object","allOf":[
                        {"properties":{"a":{"enum":[1,2]}},"additionalProperties":{"enum":[1,3]}},
                        {"properties":{"b":{"enum":[1,2,3]}},"additionalProperties":{"enum":[2,3,4]}}]})",
                   {R"({"a":1})", R"({"a":2})", R"({"b":1})", R"({"b":2})", R"({"b":3})",
                    R"({"c":3})", R"({"c":1})", R"({"a":2,"b":1,"c":3})"},
                   5);
  expect_documents(
      R"({"type":"string","minLength":1,"anyOf":[{"maxLength":2},{"pattern":"^x*$","maxLength":4}]})",
      {R"("")", R"("a")", R"("ab")", R"("abc")", R"("xxxx")", R"("xxxxx")"}, 3);
  expect_documents(
      R"({"$defs":{"l":{"type":"array","items":{"enum":[1,2]}}},"$ref":"#/$defs/l","maxItems":2,
                       "description":"beside"})",
      {"[]", "[1,2]", "[1,1,1]", "[3]"}, 2);
  expect_documents(R"({"allOf":[{"enum":[1,2,"a"]},{"enum":["a",2.0,null]}]})",
                   {"1", "\"a\"", "null"}, 1);
  expect_documents(R"({"type":["string","null"],"allOf":[{"type":["null","integer"]}]})",
                   {"null", "\"\"", "1"}, 1);
}

TEST(JsonGrammarHost, OneOfWhereChoicesExcludeEachOther) {
  expect_documents(
      R"({"oneOf":[{"type":"integer","minimum":0,"maximum":9},{"type":["string","null"]}]})",
      {"1", "\"\"", "null", "true", "10"}, 3);
  // As pydantic writes unions with a discriminator.
  expect_documents(
      R"({"$defs":{"cat":{"type":"object","properties":{"k":{"const":"cat"},"m":{"type":"boolean"}},"required":["k"]},
                   "dog":{"type":"object","properties":{"k":{"const":"dog"},"n":{"type":"null"}},"required":["k"]}},
          "discriminator":{"propertyName":"k"},"oneOf":[{"$ref":"#/$defs/cat"},{"$ref":"#/$defs/dog"}]})",
      {R"({"k":"cat"})", R"({"k":"cat","m":true})", R"({"k":"dog","n":null})",
       R"({"k":"dog","m":true})", R"({"k":"cow"})"},
      3);
  EXPECT_NE(refusal(R"({"oneOf":[{"const":1},{"const":1.0}]})"), "");
  EXPECT_EQ(refusal(R"({"oneOf":[{"const":1},{"const":2}]})"), "");
}

TEST(JsonGrammarHost, RecursiveSchemas) {
  expect_documents(
      R"({"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer","minimum":0,"maximum":9},
            "next":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/node"}]}},"required":["v","next"]}},"$ref":"#/$defs/node"})",
      {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":{"v":3,"next":null}}})",
       R"({"v":1,"next":{"v":2}})", R"({"v":1})"},
      2);
  // A choice of itself adds nothing.
  const auto itself =
      JsonGrammar::compile(R"({"anyOf":[{"$ref":"#"},{"type":"boolean"}]})", bytes());
  ASSERT_TRUE(itself.ok()) << itself.status().message();
  EXPECT_TRUE(is_document(**itself, "true"));
  EXPECT_FALSE(is_document(**itself, "null"));
  // Merged with itself again and again.
  expect_documents(
      R"({"type":"object","properties":{"x":{"allOf":[{"$ref":"#"},{"required":["y"]}]},"y":{"const":1}}})",
      {R"({})", R"({"y":1})", R"({"x":{"y":1}})", R"({"x":{"x":{"y":1},"y":1}})", R"({"x":{}})"},
      4);
}

TEST(JsonGrammarHost, Formats) {
  std::map<std::string, std::shared_ptr<const JsonGrammar>> grammars;
  for (const std::string format : {"date", "time", "date-time", "uuid", "ipv4"}) {
    const auto grammar =
        JsonGrammar::compile(OrderedJson{{"type", "string"}, {"format", format}}.dump(), bytes());
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    grammars[format] = *grammar;
  }
  const auto accepts = [&](const char* format, const std::string& text) {
    return is_document(*grammars.at(format), "\"" + text + "\"");
  };
  // Every day of a leap year, of one that is none, and of two centuries.
  for (const int year : {2024, 2023, 1900, 2000}) {
    for (unsigned month = 0; month <= 13; ++month) {
      for (unsigned day = 0; day <= 32; day += day < 27 ? 9 : 1) {
        const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                               std::chrono::day(day)};
        EXPECT_EQ(accepts("date", fmt::format("{:04}-{:02}-{:02}", year, month, day)), date.ok())
            << year << ' ' << month << ' ' << day;
      }
    }
  }
  EXPECT_TRUE(accepts("time", "23:59:59Z") && accepts("time", "00:00:00.125+09:30"));
  EXPECT_FALSE(accepts("time", "24:00:00Z") || accepts("time", "23:59:59") ||
               accepts("time", "1:00:00Z"));
  EXPECT_TRUE(accepts("date-time", "2026-11-25T04:05:06Z"));
  EXPECT_FALSE(accepts("date-time", "2026-02-30T04:05:06Z") ||
               accepts("date-time", "2026-11-25 04:05:06Z"));
  EXPECT_TRUE(accepts("uuid", "123e4567-e89b-12D3-a456-426614174000"));
  EXPECT_FALSE(accepts("uuid", "123e4567e89b12d3a456426614174000"));
  EXPECT_TRUE(accepts("ipv4", "192.168.0.255"));
  EXPECT_FALSE(accepts("ipv4", "192.168.0.256") || accepts("ipv4", "1.2.3") ||
               accepts("ipv4", "01.2.3.4"));
}

TEST(JsonGrammarHost, AnyObjectWithoutASchema) {
  const auto grammar = JsonGrammar::compile("", bytes());
  ASSERT_TRUE(grammar.ok());
  for (const char* text : {"{}", R"({"a":[1,{"b":null}],"c":"\u00e9"})", "{ \"a\" : -1.5e3 }"}) {
    EXPECT_TRUE(is_document(**grammar, text)) << text;
  }
  for (const char* text :
       {"[]", "1", "\"a\"", " {}", "{} ", "{,}", "{\"a\":01}", "{\"a\":\"\\ud800\"}"}) {
    EXPECT_FALSE(is_document(**grammar, text)) << text;
  }
}

// Spans of other lengths and with other tokens, in any order, give what a new mask gives.
TEST(JsonGrammarHost, MasksFollowWhateverSpanComes) {
  const auto grammar = JsonGrammar::compile(
      R"({"type":"object","properties":{"a":{"type":"array","items":{"type":"string","maxLength":9}},"b":{"type":"integer"}}})",
      bytes());
  ASSERT_TRUE(grammar.ok());
  const std::vector<std::string> texts = {R"({"a":["xyz","\u00e9",""],"b":-12})",
                                          R"({"a":["xyw"]})",
                                          R"({"b":1234})",
                                          "{}",
                                          R"({"a":["xyz","q"]})",
                                          R"({"c)",
                                          R"(nonsense)"};
  const runtime::TokenMask mask = (*grammar)->mask();
  Random random(8);
  for (int round = 0; round < 400; ++round) {
    std::vector<uint32_t> ids = ids_of(texts[random.below(uint32_t(texts.size()))]);
    ids.resize(random.below(uint32_t(ids.size()) + 1));
    if (random.below(8) == 0) ids.push_back(0);                   // ends, if it may
    if (random.below(8) == 0) ids.push_back(random.below(4000));  // perhaps no token at all
    ASSERT_EQ(allowed(mask, ids, 257), allowed((*grammar)->mask(), ids, 257)) << round;
  }
}

TEST(JsonGrammarHost, BehindTheEndOnlyTheEnd) {
  std::vector<std::string> tokens = byte_tokens({"<other end>"});
  const uint32_t ends[] = {257, 0};
  const auto vocabulary = runtime::GrammarVocabulary::create(tokens, ends);
  ASSERT_TRUE(vocabulary.ok());
  const auto grammar = JsonGrammar::compile(R"({"const":[]})", *vocabulary);
  const runtime::TokenMask mask = (*grammar)->mask();
  std::vector<bool> expected(258);
  expected[0] = expected[257] = true;
  std::vector<uint32_t> ids = ids_of("[]");
  EXPECT_EQ(allowed(mask, ids, 258), expected);
  for (const uint32_t end : {257u, 0u, 0u}) {
    ids.push_back(end);
    EXPECT_EQ(allowed(mask, ids, 258), expected);
  }
  // An end before the document's: nothing.
  EXPECT_EQ(allowed(mask, {1 + '[', 0}, 258), std::vector<bool>(258));
}

TEST(JsonGrammarHost, SmallAndLargeVocabulariesOfTheModel) {
  const auto grammar = JsonGrammar::compile("", bytes());
  std::vector<uint32_t> small(2), large(12);
  EXPECT_TRUE((*grammar)->mask()({}, small) && (*grammar)->mask()({}, large));
  EXPECT_EQ(large[('{' + 1) / 32], 1u << ('{' + 1) % 32);
  EXPECT_EQ(std::count(large.begin(), large.end(), 0u), 11);
  EXPECT_EQ(small, std::vector<uint32_t>(2));
}

TEST(JsonGrammarHost, VocabulariesAreRefusedByName) {
  const auto message = [](std::vector<std::string> tokens, std::vector<uint32_t> ends) {
    return runtime::GrammarVocabulary::create(std::move(tokens), ends).status().message();
  };
  EXPECT_EQ(message({"a"}, {}),
            "json_grammar: end_ids must have a token that ends a document, got none");
  EXPECT_EQ(message({"a"}, {1}), "json_grammar: end_ids must be below the vocabulary's 1, got 1");
  EXPECT_EQ(JsonGrammar::compile("", nullptr).status().message(),
            "json_grammar: vocabulary must be there, got none");
}

// A real byte-level vocabulary: what it encodes is allowed, added tokens are not.
TEST(JsonGrammarHost, TokenizersOfCheckpoints) {
  const auto tokenizer = model::Tokenizer::load(HADAL_SOURCE_DIR "/examples/models/fables");
  ASSERT_TRUE(tokenizer.ok());
  const auto grammar = JsonGrammar::compile("", *tokenizer);
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  const size_t vocab = tokenizer->vocab_size();
  const runtime::TokenMask mask = (*grammar)->mask();
  const std::string document =
      "{\"the \xc3\xa9lan\": [\"of \xe4\xb8\xad\xf0\x9f\x98\x80 a fox\\n\", 12.5, true]}";
  const auto ids = tokenizer->encode(document, false);
  ASSERT_TRUE(ids.ok());
  for (size_t n = 0; n <= ids->size(); ++n) {
    const std::vector<uint32_t> prefix(ids->begin(), ids->begin() + ptrdiff_t(n));
    const std::vector<bool> bits = allowed(mask, prefix, vocab);
    EXPECT_TRUE(bits[n < ids->size() ? (*ids)[n] : *tokenizer->eos_id()]) << n;
    for (uint32_t id = 0; id < vocab; ++id) {
      const bool ordinary = tokenizer->plain_bytes(id) || id == *tokenizer->eos_id();
      EXPECT_FALSE(bits[id] && !ordinary) << id;
    }
  }
}

TEST(JsonGrammarHost, MasksOfOneGrammarOnManyThreads) {
  const auto grammar =
      JsonGrammar::compile(R"({"type":"array","items":{"type":"string","maxLength":40}})", bytes());
  const std::string document = R"(["abcdefghijklmnopqrstuvwxyz","\u00e9",""])";
  const runtime::TokenMask shared = (*grammar)->mask();
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const runtime::TokenMask own = (*grammar)->mask();
      const std::vector<uint32_t> ids = ids_of(document);
      for (size_t n = 0; n < ids.size(); ++n) {
        for (const runtime::TokenMask* mask : {&own, &shared}) {
          std::vector<uint32_t> bits(9);
          (*mask)(std::span(ids).first(n), bits);
          wrong[size_t(t)] += !(bits[ids[n] / 32] >> (ids[n] % 32) & 1);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

}  // namespace
}  // namespace hadal::test
