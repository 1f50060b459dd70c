// Random schemas: texts along random allowed tokens are documents, and documents made by the
// schema's definition are allowed however they are cut into tokens.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "support/json_grammar.h"

namespace hadal::test {
namespace {

// A schema and a writer of its documents, made together.
struct Sample {
  OrderedJson schema;
  std::function<std::string()> write;
};

class Samples {
 public:
  explicit Samples(uint32_t seed, bool spaces) : random_(seed), spaces_(spaces) {}

  Sample any(int depth) {
    switch (random_.below(depth > 0 ? 12 : 7)) {
      case 0: return word();
      case 1: return integer();
      case 2: return number();
      case 3: return text();
      case 4: return pattern();
      case 5: return constants();
      case 6: return free_number();
      case 7: return array(depth);
      case 8: return tuple(depth);
      case 9: return choice(depth);
      default: return object(depth);
    }
  }
  Random& random() { return random_; }
  std::string space() {
    std::string out;
    while (spaces_ && out.size() < 3 && random_.below(3) == 0) out += " \n\t\r"[random_.below(4)];
    return out;
  }

 private:
  Sample word() {
    const bool null = random_.below(2);
    OrderedJson type = "boolean";
    if (null) type = {"boolean", "null"};
    return {{{"type", type}}, [=, this] {
              const char* words[] = {"true", "false", "null"};
              return std::string(words[random_.below(null ? 3 : 2)]);
            }};
  }
  Sample integer() {
    const int64_t low = int64_t(random_.below(2000)) - 1000, high = low + random_.below(3000);
    return {{{"type", "integer"}, {"minimum", low}, {"maximum", high}},
            [=, this] { return std::to_string(low + random_.below(uint32_t(high - low + 1))); }};
  }
  Sample number() {
    const int64_t low = int64_t(random_.below(2000)) - 1000, high = low + 1 + random_.below(300);
    return {{{"type", "number"}, {"minimum", low}, {"exclusiveMaximum", high}}, [=, this] {
              const int64_t whole = low + random_.below(uint32_t(high - low));
              if (whole < 0 || random_.below(2)) return std::to_string(whole);
              return fmt::format("{}.{}", whole, random_.below(100000));
            }};
  }
  Sample free_number() {
    return {{{"type", "number"}}, [this] {
              std::string out = random_.below(2) ? "-" : "";
              out += std::to_string(random_.below(1000));
              if (random_.below(2)) out += fmt::format(".{}", random_.bits());
              if (random_.below(2))
                out += fmt::format("{}{}{}", "eE"[random_.below(2)], random_.below(2) ? "-" : "",
                                   random_.below(100));
              return out;
            }};
  }
  std::string character() {
    const char* all[] = {"a",
                         "B",
                         "9",
                         " ",
                         "{",
                         "}",
                         "\xc3\xa9",
                         "\xe4\xb8\xad",
                         "\xf0\x9f\x98\x80",
                         "\\\"",
                         "\\\\",
                         "\\n",
                         "\\/",
                         "\\u00e9",
                         "\\ud83d\\ude00",
                         "\\u000b",
                         ":",
                         ",",
                         "\x7f"};
    return all[random_.below(std::size(all))];
  }
  Sample text() {
    const uint32_t least = random_.below(3), most = least + random_.below(6);
    OrderedJson schema = {{"type", "string"}};
    const bool bounded = random_.below(3);
    if (bounded) schema["minLength"] = least, schema["maxLength"] = most;
    return {schema, [=, this] {
              std::string out = "\"";
              for (uint32_t n = least + random_.below(most - least + 1); n > 0; --n)
                out += character();
              return out + "\"";
            }};
  }
  Sample pattern() {
    switch (random_.below(3)) {
      case 0:
        return {{{"type", "string"}, {"pattern", "^[a-c]+-\\d{2,4}$"}}, [this] {
                  std::string out = "\"";
                  for (uint32_t n = 1 + random_.below(4); n > 0; --n)
                    out += char('a' + random_.below(3));
                  return out + "-" + std::to_string(10 + random_.below(9990)) + "\"";
                }};
      case 1:
        return {{{"type", "string"}, {"pattern", "x"}, {"maxLength", 6}}, [this] {
                  std::string out = "\"";
                  for (uint32_t n = random_.below(3); n > 0; --n)
                    out += random_.below(2) ? "\xc3\xa9" : "\\n";
                  return out + "x" + (random_.below(2) ? "\\\"" : "q") + "\"";
                }};
      default:
        return {{{"type", "string"}, {"format", "date"}}, [this] {
                  return fmt::format("\"{:04}-{:02}-{:02}\"", random_.below(10000),
                                     1 + random_.below(12), 1 + random_.below(28));
                }};
    }
  }
  Sample constants() {
    const OrderedJson all = {"red", "re\"d\n",         1,          -12, 1.5, nullptr,
                             true,  {1, {{"k", "v"}}}, "\xc3\xa9", ""};
    OrderedJson some = OrderedJson::array();
    for (const OrderedJson& value : all) {
      if (random_.below(2)) some.push_back(value);
    }
    if (some.empty()) some.push_back("only");
    return {{{"enum", some}},
            [=, this] { return some[random_.below(uint32_t(some.size()))].dump(); }};
  }
  std::string list(const std::vector<std::string>& parts, const char* brackets) {
    std::string out(1, brackets[0]);
    for (size_t i = 0; i < parts.size(); ++i) out += (i ? "," : "") + space() + parts[i] + space();
    return out + (parts.empty() ? space() : "") + brackets[1];
  }
  Sample array(int depth) {
    const Sample item = any(depth - 1);
    const uint32_t least = random_.below(3), most = least + random_.below(3);
    OrderedJson schema = {{"type", "array"}, {"items", item.schema}, {"minItems", least}};
    if (random_.below(2)) schema["maxItems"] = most;
    return {schema, [=, this] {
              std::vector<std::string> parts;
              for (uint32_t n = least + random_.below(most - least + 1); n > 0; --n)
                parts.push_back(item.write());
              return list(parts, "[]");
            }};
  }
  Sample tuple(int depth) {
    const Sample first = any(depth - 1), second = any(depth - 1);
    return {{{"type", "array"},
             {"prefixItems", {first.schema, second.schema}},
             {"items", false},
             {"minItems", 1}},
            [=, this] {
              std::vector<std::string> parts = {first.write()};
              if (random_.below(2)) parts.push_back(second.write());
              return list(parts, "[]");
            }};
  }
  Sample choice(int depth) {
    const Sample first = any(depth - 1), second = any(depth - 1);
    return {{{"anyOf", {first.schema, second.schema}}},
            [=, this] { return random_.below(2) ? first.write() : second.write(); }};
  }
  Sample object(int depth) {
    const std::vector<std::string> names = {"id", "i", "\xc3\xa9t\xc3\xa9", "a \"b\"", "", "name"};
    OrderedJson schema = {{"type", "object"}, {"properties", OrderedJson::object()}};
    struct Property {
      std::string name;
      bool required;
      std::function<std::string()> write;
    };
    std::vector<Property> properties;
    for (const std::string& name : names) {
      if (random_.below(3)) continue;
      const Sample value = any(depth - 1);
      schema["properties"][name] = value.schema;
      properties.push_back({name, random_.below(2) == 0, value.write});
      if (properties.back().required) schema["required"].push_back(name);
    }
    const bool open = random_.below(3) == 0;
    Sample more;
    if (open) more = any(0), schema["additionalProperties"] = more.schema;
    return {schema, [=, this] {
              std::vector<std::string> parts;
              const auto add = [&](const std::string& name, const std::string& value) {
                parts.push_back(OrderedJson(name).dump() + space() + ":" + space() + value);
              };
              for (const Property& p : properties) {
                if (p.required || random_.below(2)) add(p.name, p.write());
              }
              for (int n = 0; open && n < 2 && random_.below(2); ++n)
                add(random_.below(2) ? "ide" : "x\ny", more.write());
              return list(parts, "{}");
            }};
  }

  Random random_;
  bool spaces_;
};

const std::vector<std::string>& tokens() {
  static const std::vector<std::string> all = byte_tokens(
      {"{\"", "\":", "\",",   "\"}",  "\",\"",      "\": ",     "}}",       "[]",       "{}",
       "[[",  "\\u", "\\\"",  "\\n",  "\xc3\xa9\"", "\xb8\xad", "\xe4\xb8", "\x9f\x98", "true",
       "tru", "e,",  "false", "null", " [",         ", \"",     "-1",       "10",       "00",
       "12",  ".5",  "e-",    "id",   "id\":",      "name",     "red",      "re",       "aa",
       "abc", "-12", "\n  ",  "1,",   "2]",         "3}",       "x\"",      "\"x",      "<end>"});
  return all;
}

std::string written(const std::vector<uint32_t>& ids) {
  std::string text;
  for (const uint32_t id : ids) text += tokens()[id];
  return text;
}

// One that leads to an end soon, as far as can be seen from the mask.
uint32_t ending_token(const std::vector<bool>& mask, Random& random) {
  if (mask[0]) return 0;
  const std::string closing = "}]\":", later = ",[{\\ \t\n\r";
  const auto one_of = [&](const std::function<bool(char)>& wanted) {
    std::vector<uint32_t> ids;
    for (uint32_t id = 1; id <= 256; ++id) {
      if (mask[id] && wanted(char(id - 1))) ids.push_back(id);
    }
    return ids.empty() ? UINT32_MAX : ids[random.below(uint32_t(ids.size()))];
  };
  uint32_t id = one_of([&](char c) { return closing.find(c) != std::string::npos; });
  if (id == UINT32_MAX) id = one_of([&](char c) { return later.find(c) == std::string::npos; });
  return id == UINT32_MAX ? one_of([](char) { return true; }) : id;
}

TEST(JsonGrammarRandom, WalksEndInDocumentsOfTheSchema) {
  const auto vocabulary = vocabulary_of(tokens());
  for (uint32_t seed = 0; seed < 150; ++seed) {
    Samples samples(seed, true);
    const OrderedJson schema = samples.any(3).schema;
    SCOPED_TRACE(schema.dump());
    const auto grammar = runtime::JsonGrammar::compile(schema.dump(), vocabulary, {4});
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    const runtime::TokenMask mask = (*grammar)->mask();
    for (int walk = 0; walk < 4; ++walk) {
      std::vector<uint32_t> ids;
      Random& random = samples.random();
      const size_t wander = random.below(40);
      while (true) {
        const std::vector<bool> bits = allowed(mask, ids, tokens().size());
        uint32_t id = ending_token(bits, random);
        ASSERT_NE(id, UINT32_MAX) << "a dead end behind " << written(ids);
        if (ids.size() < wander) {
          std::vector<uint32_t> all;
          for (uint32_t i = 0; i < bits.size(); ++i) {
            if (bits[i] && !(i == 0 && random.below(2))) all.push_back(i);
          }
          if (!all.empty()) id = all[random.below(uint32_t(all.size()))];
        }
        if (id == 0) break;
        ids.push_back(id);
        ASSERT_LT(ids.size(), 3000u) << written(ids);
      }
      const auto value = OrderedJson::parse(written(ids), nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << written(ids);
      EXPECT_TRUE(satisfies(schema, value, schema)) << written(ids);
    }
  }
}

TEST(JsonGrammarRandom, DocumentsAreAllowedHoweverTheyAreCut) {
  const auto vocabulary = vocabulary_of(tokens());
  for (uint32_t seed = 1000; seed < 1150; ++seed) {
    const bool spaces = seed % 2;
    Samples samples(seed, spaces);
    const Sample sample = samples.any(3);
    SCOPED_TRACE(sample.schema.dump());
    const auto grammar =
        runtime::JsonGrammar::compile(sample.schema.dump(), vocabulary, {spaces ? 6u : 0u});
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    const runtime::TokenMask mask = (*grammar)->mask();
    for (int round = 0; round < 4; ++round) {
      const std::string document = sample.write();
      ASSERT_TRUE(satisfies(sample.schema, OrderedJson::parse(document), sample.schema))
          << document;
      std::vector<uint32_t> ids;
      for (size_t at = 0; at < document.size();) {
        std::vector<uint32_t> fitting;
        for (uint32_t id = 1; id < tokens().size(); ++id) {
          if (document.compare(at, tokens()[id].size(), tokens()[id]) == 0) fitting.push_back(id);
        }
        const std::vector<bool> bits = allowed(mask, ids, tokens().size());
        for (const uint32_t id : fitting) {
          ASSERT_TRUE(bits[id]) << "token " << tokens()[id] << " behind " << written(ids) << " of "
                                << document;
        }
        ids.push_back(fitting[samples.random().below(uint32_t(fitting.size()))]);
        at += tokens()[ids.back()].size();
      }
      const std::vector<bool> bits = allowed(mask, ids, tokens().size());
      ASSERT_TRUE(bits[0]) << document;
      // Nothing follows a document that ends with its own last character.
      if (std::string("}]\"el").find(document.back()) != std::string::npos) {
        EXPECT_EQ(std::count(bits.begin(), bits.end(), true), 1) << document;
      }
    }
  }
}

}  // namespace
}  // namespace hadal::test
