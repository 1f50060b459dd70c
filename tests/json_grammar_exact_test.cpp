// Masks against brute force: all documents of small languages are listed by their definition, and a
// token is allowed exactly if some document begins with the text and the token.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <regex>
#include <set>

#include "support/json_grammar.h"

namespace hadal::test {
namespace {

using Documents = std::set<std::string>;

Documents concatenated(const std::vector<Documents>& parts) {
  Documents all = {""};
  for (const Documents& part : parts) {
    Documents longer;
    for (const std::string& a : all) {
      for (const std::string& b : part) longer.insert(a + b);
    }
    all = std::move(longer);
  }
  return all;
}

Documents united(std::vector<Documents> parts) {
  Documents all;
  for (Documents& part : parts) all.merge(part);
  return all;
}

// Quoted strings of `least` to `most` of these characters, as far as they are wanted.
Documents strings(const std::vector<std::string>& characters, size_t least, size_t most,
                  const std::function<bool(const std::string&)>& wanted = {}) {
  Documents all, layer = {""};
  for (size_t length = 0; length <= most; ++length) {
    for (const std::string& s : layer) {
      if (length >= least && (!wanted || wanted(s))) all.insert("\"" + s + "\"");
    }
    layer = concatenated({layer, Documents(characters.begin(), characters.end())});
  }
  return all;
}

bool some_begins(const Documents& documents, const std::string& text) {
  const auto it = documents.lower_bound(text);
  return it != documents.end() && it->starts_with(text);
}

// Every text that begins a document and that tokens lead to, up to `limit` of them; `judged` says
// for which texts the list of documents is complete.
void expect_exact(const std::string& schema, const Documents& documents,
                  std::vector<std::string> tokens,
                  const std::function<bool(const std::string&)>& judged = {},
                  uint32_t max_whitespace = 0, size_t limit = 1500) {
  SCOPED_TRACE(schema);
  tokens.insert(tokens.begin(), "<end>");
  const auto grammar =
      runtime::JsonGrammar::compile(schema, vocabulary_of(tokens), {max_whitespace});
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  ASSERT_FALSE(documents.empty());
  const runtime::TokenMask mask = (*grammar)->mask();
  // By text: how it was cut into tokens must not matter, so the first way serves.
  std::map<std::string, std::vector<uint32_t>> open = {{"", {}}};
  std::set<std::string> seen;
  while (!open.empty() && seen.size() < limit) {
    // Some text that is neither the first nor the last: long and short ones alike.
    auto it = open.lower_bound(std::string(1, "{[\"-0t"[seen.size() % 6]));
    if (it == open.end()) it = open.begin();
    const auto [text, ids] = *it;
    open.erase(it);
    if (!seen.insert(text).second) continue;
    const std::vector<bool> mask_allows = allowed(mask, ids, tokens.size());
    ASSERT_EQ(mask_allows[0], documents.count(text) == 1) << "the end behind " << text;
    for (uint32_t id = 1; id < tokens.size(); ++id) {
      const std::string longer = text + tokens[id];
      if (judged && !judged(longer)) continue;
      ASSERT_EQ(mask_allows[id], some_begins(documents, longer))
          << "token "
          << nlohmann::json(tokens[id])
                 .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)
          << " behind " << text;
      if (mask_allows[id] && !seen.count(longer)) {
        std::vector<uint32_t> next = ids;
        next.push_back(id);
        open.emplace(longer, std::move(next));
      }
    }
  }
  EXPECT_GE(seen.size(), documents.size() > 1 ? 3u : 2u);
}

// All texts of up to three of these.
std::vector<std::string> combined(const std::vector<std::string>& pieces) {
  std::vector<std::string> all = pieces;
  for (const std::string& a : pieces) {
    for (const std::string& b : pieces) {
      all.push_back(a + b);
      for (const std::string& c : pieces) all.push_back(a + b + c);
    }
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

TEST(JsonGrammarExact, ObjectsInTheOrderOfTheirProperties) {
  const Documents number = {"0", "1", "2"};
  for (int required = 0; required < 8; ++required) {
    OrderedJson schema = {{"type", "object"}, {"additionalProperties", false}};
    std::vector<std::string> names = {"a", "ab", "b"};
    schema["required"] = OrderedJson::array();
    for (int i = 0; i < 3; ++i) {
      schema["properties"][names[i]] = {{"type", "integer"}, {"minimum", 0}, {"maximum", 2}};
      if (required >> i & 1) schema["required"].push_back(names[i]);
    }
    Documents documents;
    for (int present = 0; present < 8; ++present) {
      if ((present & required) != required) continue;
      std::vector<Documents> parts = {{"{"}};
      for (int i = 0; i < 3; ++i) {
        if (!(present >> i & 1)) continue;
        parts.push_back({std::string(parts.size() > 1 ? "," : "") + "\"" + names[i] + "\":"});
        parts.push_back(number);
      }
      parts.push_back({"}"});
      documents.merge(concatenated(parts));
    }
    expect_exact(schema.dump(), documents,
                 combined({"{", "\"", "a", "b", ":", "0", "2", "3", ",", "}"}));
  }
}

TEST(JsonGrammarExact, AdditionalPropertiesHaveOtherNames) {
  // Names of up to two letters; tokens cannot write longer ones than the mask is asked about.
  Documents names = strings({"a", "b", "\\n"}, 0, 2);
  names.erase("\"a\"");
  Documents documents = {"{\"a\":1}"};
  const Documents others = concatenated({names, {":true"}});
  documents.merge(concatenated({{"{\"a\":1,"}, others, {"}"}}));
  documents.merge(concatenated({{"{\"a\":1,"}, others, {","}, others, {"}"}}));
  const auto judged = [](const std::string& text) {
    // The list ends at two additional properties, with names of two of its characters.
    int commas = 0, characters = 0;
    bool inside = false;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '"') {
        inside = !inside, characters = 0;
      } else if (inside) {
        if (text[i] == '\\') ++i;
        if (i < text.size() && text[i] != (text[i - 1] == '\\' ? 'n' : text[i] == 'a' ? 'a' : 'b'))
          return false;
        if (++characters > 2) return false;
      } else {
        commas += text[i] == ',';
      }
    }
    return commas <= 2;
  };
  expect_exact(
      R"({"properties":{"a":{"const":1}},"additionalProperties":{"const":true},"required":["a"],
          "type":"object"})",
      documents,
      {"{",   "\"",  "a",    "b",  "\\",   "n",   ":",   "1",     "true",  ",",    "}",      "{\"",
       "\":", "\",", "a\":", "aa", "ab\"", "\\n", "\"}", "true,", "true}", ",\"a", ",\"b\":"},
      judged);
}

TEST(JsonGrammarExact, ArraysCountTheirItems) {
  for (int least = 0; least < 4; ++least) {
    for (int most = std::max(least, 1); most < 4; ++most) {
      for (const bool prefix : {false, true}) {
        OrderedJson schema = {{"type", "array"},
                              {"minItems", least},
                              {"maxItems", most},
                              {"items", {{"enum", {1, 12}}}}};
        if (prefix) schema["prefixItems"] = {{{"type", "null"}}};
        Documents documents;
        for (int n = least; n <= most; ++n) {
          std::vector<Documents> parts = {{"["}};
          for (int i = 0; i < n; ++i) {
            if (i > 0) parts.push_back({","});
            parts.push_back(prefix && i == 0 ? Documents{"null"} : Documents{"1", "12"});
          }
          parts.push_back({"]"});
          documents.merge(concatenated(parts));
        }
        expect_exact(schema.dump(), documents, combined({"[", "1", "2", ",", "]", "nul", "l"}));
      }
    }
  }
}

TEST(JsonGrammarExact, IntegersInsideTheirBounds) {
  Random random(4);
  std::vector<std::string> tokens = combined({"-", "0", "1", "3", "7", "9", "5"});
  for (const char* more : {".", "1e", " ", "2", "4", "6", "8"}) tokens.push_back(more);
  for (int round = 0; round < 16; ++round) {
    const int64_t a = int64_t(random.below(2400)) - 1200, b = int64_t(random.below(2400)) - 1200;
    const int64_t low = round % 8 ? std::min(a, b) : -3, high = round % 8 ? std::max(a, b) : 17;
    const int64_t multiple = round % 3 ? 1 : 1 + random.below(90);
    const bool exclusive = round % 5 == 0;
    Documents documents;
    for (int64_t v = low; v <= high; ++v) {
      if (v % multiple == 0 && !(exclusive && (v == low || v == high)))
        documents.insert(std::to_string(v));
    }
    if (documents.empty()) continue;
    OrderedJson schema = {{"type", "integer"}, {"multipleOf", multiple}};
    schema[exclusive ? "exclusiveMinimum" : "minimum"] = low;
    schema[exclusive ? "exclusiveMaximum" : "maximum"] = high;
    expect_exact(schema.dump(), documents, tokens, {}, 0, 250);
  }
}

TEST(JsonGrammarExact, NumbersInsideTheirBounds) {
  Random random(5);
  std::vector<std::string> tokens = combined({"-", "0", "1", "5", "9", ".", "e"});
  for (int digit = 2; digit < 9; ++digit) tokens.push_back(std::to_string(digit));
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  for (int round = 0; round < 16; ++round) {
    // Hundredths; documents have up to three digits behind the point, texts are judged with two.
    const int64_t a = int64_t(random.below(4000)) - 2000, b = int64_t(random.below(4000)) - 2000;
    const int64_t low = std::min(a, b), high = round % 4 ? std::max(a, b) : low + random.below(3);
    const bool exclusive = round % 3 == 0;
    Documents documents;
    for (int64_t v = 10 * low; v <= 10 * high; ++v) {  // thousandths
      if (exclusive && (v == 10 * low || v == 10 * high)) continue;
      const int64_t m = std::abs(v);
      std::string text = fmt::format("{}{}.{:03}", v < 0 ? "-" : "", m / 1000, m % 1000);
      documents.insert(text);
      for (int digits = 0; digits < 3 && text.back() == '0'; ++digits) {
        text.pop_back();
        if (text.back() == '.') text.pop_back();
        documents.insert(text);
        if (text.find('.') == std::string::npos) break;
      }
    }
    if (documents.empty()) continue;
    OrderedJson schema = {{"type", "number"}};
    schema[exclusive ? "exclusiveMinimum" : "minimum"] = nlohmann::json::parse(
        fmt::format("{}{}.{:02}", low < 0 ? "-" : "", std::abs(low) / 100, std::abs(low) % 100));
    schema[exclusive ? "exclusiveMaximum" : "maximum"] = double(high) / 100;
    const auto judged = [](const std::string& text) {
      const size_t point = text.find('.');
      return point == std::string::npos || text.size() - point - 1 <= 2;
    };
    expect_exact(schema.dump(), documents, tokens, judged, 0, 250);
  }
}

// What JSON allows, up to two digits in each part.
TEST(JsonGrammarExact, NumbersWithoutBounds) {
  Documents documents;
  for (const char* sign : {"", "-"}) {
    for (int n = 0; n < 100; ++n) {
      for (const char* fraction : {"", ".0", ".5", ".05", ".50", ".55", ".00"}) {
        for (const char* e : {"", "e", "E+", "e-", "e+"}) {
          for (const char* power : {"0", "5", "05", "50", "55", "00"}) {
            documents.insert(sign + std::to_string(n) + fraction + e + (*e ? power : ""));
          }
        }
      }
    }
  }
  const auto judged = [](const std::string& text) {
    const auto part = [&](size_t begin, size_t end) {
      return std::min(end, text.size()) - std::min(begin, text.size());
    };
    const size_t point = text.find('.'), e = text.find_first_of("eE");
    const size_t first = text.starts_with('-');
    return part(first, std::min(point, e)) <= 2 &&
           (point == text.npos || part(point + 1, e) <= 2) &&
           (e == text.npos || text[e] == 'e' || text.size() == e + 1 || text[e + 1] == '+');
  };
  expect_exact(R"({"type":"number"})", documents, combined({"-", "0", "5", ".", "e", "+"}), judged);
  // The limits of the header.
  const auto grammar =
      runtime::JsonGrammar::compile(R"({"type":"number"})", vocabulary_of(byte_tokens()));
  const runtime::TokenMask mask = (*grammar)->mask();
  const auto goes_on = [&](const std::string& text, char next) -> bool {
    std::vector<uint32_t> ids;
    for (const char c : text) ids.push_back(1 + uint8_t(c));
    return allowed(mask, ids, 257)[1 + size_t(uint8_t(next))];
  };
  EXPECT_TRUE(goes_on(std::string(18, '1'), '1') && goes_on(std::string(19, '1'), '.'));
  EXPECT_FALSE(goes_on(std::string(19, '1'), '1'));
  EXPECT_TRUE(goes_on("0." + std::string(18, '1'), '1') &&
              goes_on("0." + std::string(19, '1'), 'e'));
  EXPECT_FALSE(goes_on("0." + std::string(19, '1'), '1'));
  EXPECT_TRUE(goes_on("1e-9", '9'));
  EXPECT_FALSE(goes_on("1e-99", '9'));
}

TEST(JsonGrammarExact, StringsInEveryEscapeAndCharacter) {
  // Tokens hold parts of characters: of U+E9, U+20AC, U+D7FF, U+10FFFF, and bytes of none.
  const std::vector<std::string> characters = {
      "a",    "n",    "/",   "\xc3\xa9", "\xe2\x82\xac", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf",
      "\\\"", "\\\\", "\\/", "\\n"};
  std::vector<std::string> tokens = {
      "\"",   "a",    "n",      "/",          "\\",       "\xc3",     "\xa9",   "\xe2", "\x82",
      "\xac", "\xed", "\x9f",   "\xa0",       "\xbf",     "\xf4",     "\x8f",   "\x90", "\xc0",
      "\xff", "\x01", "\n",     "\x82\xac",   "\xe2\x82", "a\xe2",    "\xac\"", "a\"",  "\"a",
      "\\\"", "\\\\", "\\\\\"", "\xc3\xa9\"", "\xbf\xbf", "\xed\xa0", "\"\"",   "\\n\\"};
  // A byte may also begin a character that is not listed.
  const auto judged = [](const std::string& text) {
    for (const char* other :
         {"\xc3\x8f",         "\xc3\x90",         "\xc3\x82",         "\xc3\x9f",
          "\xc3\xa0",         "\xc3\xac",         "\xc3\xbf",         "\xe2\x8f",
          "\xe2\x90",         "\xe2\x9f",         "\xe2\xa0",         "\xe2\xa9",
          "\xe2\xac",         "\xe2\xbf",         "\xe2\x82\x82",     "\xe2\x82\x8f",
          "\xe2\x82\x90",     "\xe2\x82\x9f",     "\xe2\x82\xa0",     "\xe2\x82\xa9",
          "\xe2\x82\xbf",     "\xed\x82",         "\xed\x8f",         "\xed\x90",
          "\xed\x9f\x82",     "\xed\x9f\x8f",     "\xed\x9f\x90",     "\xed\x9f\x9f",
          "\xed\x9f\xa0",     "\xed\x9f\xa9",     "\xed\x9f\xac",     "\xf4\x82",
          "\xf4\x8f\x82",     "\xf4\x8f\x8f",     "\xf4\x8f\x90",     "\xf4\x8f\x9f",
          "\xf4\x8f\xa0",     "\xf4\x8f\xa9",     "\xf4\x8f\xac",     "\xf4\x8f\xbf\x82",
          "\xf4\x8f\xbf\x8f", "\xf4\x8f\xbf\x90", "\xf4\x8f\xbf\x9f", "\xf4\x8f\xbf\xa0",
          "\xf4\x8f\xbf\xa9", "\xf4\x8f\xbf\xac"}) {
      if (text.find(other) != text.npos) return false;
    }
    return true;
  };
  for (size_t most = 0; most < 4; ++most) {
    for (size_t least = 0; least <= std::min<size_t>(most, 2); ++least) {
      expect_exact(fmt::format(R"({{"type":"string","minLength":{},"maxLength":{}}})", least, most),
                   strings(characters, least, most), tokens, judged, 0, 500);
    }
  }
}

// \u with every pair of surrogates begun, and none alone.
TEST(JsonGrammarExact, UnicodeEscapes) {
  const std::vector<std::string> digits = {"0", "7", "8", "9", "d", "D", "b", "C", "f"};
  Documents units, documents;
  for (const auto& a : digits) {
    for (const auto& b : digits) {
      for (const auto& c : digits) {
        for (const auto& d : digits) units.insert("\\u" + a + b + c + d);
      }
    }
  }
  const auto code = [](const std::string& unit) { return std::stoul(unit.substr(2), nullptr, 16); };
  std::vector<std::string> high, low;
  for (const std::string& unit : units) {
    const auto c = code(unit);
    if (c >= 0xd800 && c < 0xdc00) {
      high.push_back(unit);
    } else if (c >= 0xdc00 && c < 0xe000) {
      low.push_back(unit);
    } else {
      documents.insert("\"" + unit + "\"");
    }
  }
  high.resize(20);  // of 3 * 2 * 81: pairs are many, and the first ones serve
  for (const std::string& h : high) {
    for (const std::string& l : low) documents.insert("\"" + h + l + "\"");
  }
  // Where a pair has begun it must be one of those.
  const auto judged = [&](const std::string& text) {
    if (text.size() < 5 || !text.starts_with("\"\\u") || (text[3] | 32) != 'd') return true;
    if (text[4] < '8' || (text[4] | 32) == 'c') return true;
    const std::string begun = text.substr(1, 6);
    return std::any_of(high.begin(), high.end(),
                       [&](const std::string& unit) { return unit.starts_with(begun); });
  };
  for (const std::string& digit : digits) documents.insert("\"" + digit + "\"");
  std::vector<std::string> tokens = {"\"", "\\u"};
  tokens.insert(tokens.end(), digits.begin(), digits.end());
  for (const char* more : {"\\uD8", "\\ud", "d8", "00", "\\uDC", "dC", "0\"", "00\\u", "\"\\uD80"})
    tokens.push_back(more);
  expect_exact(R"({"type":"string","minLength":1,"maxLength":1})", documents, tokens, judged, 0,
               6000);
}

TEST(JsonGrammarExact, PatternsAsRegexSearch) {
  const std::vector<std::string> characters = {"a", "b", "1", " ", "-"};
  const std::vector<std::string> tokens = combined({"a", "b", "1", " ", "-", "\""});
  for (const char* pattern : {"^a",
                              "b$",
                              "^$",
                              "a|b",
                              "^(a|b)*$",
                              "^a+b?1{2}$",
                              "^[a-b]{2,3}$",
                              "^[^a]*$",
                              "\\d",
                              "^\\w+$",
                              "^\\S+$",
                              "^\\s*\\d+$",
                              "(^a|b$)",
                              "^(?:a|ab)(?:1|b1)$",
                              "a.b",
                              "^.{2}$",
                              "^(a*)*b$",
                              "^a{0}b*$",
                              "^(a|)b+$",
                              "a+?b",
                              "^-?1$",
                              "[\\-1]$",
                              "^(a(b(1)?)?)?$",
                              "\\Wa",
                              "^a*$|^b*$",
                              "",
                              "()",
                              "(a|b$)1*$",
                              "^\\x61\\u0062",
                              "^(?:-|1)+a"}) {
    for (const int least : {0, 2}) {
      const std::regex regex(pattern);
      const Documents documents = strings(characters, size_t(least), 4, [&](const std::string& s) {
        return std::regex_search(s, regex);
      });
      if (documents.empty()) continue;
      const OrderedJson schema = {
          {"type", "string"}, {"pattern", pattern}, {"minLength", least}, {"maxLength", 4}};
      expect_exact(schema.dump(), documents, tokens, {}, 0, 120);
    }
  }
}

TEST(JsonGrammarExact, ChoicesThatBeginAlike) {
  const auto property = [](const char* name, const Documents& values) {
    return concatenated({{std::string("{\"k\":\"") + name + "\",\"v\":"}, values, {"}"}});
  };
  const Documents documents = united({property("x", {"1", "2"}),
                                      property("xy", {"true", "[]", "[1]"}),
                                      {"1", "12", "null", "\"k\""}});
  expect_exact(
      R"({"anyOf":[{"type":"object","properties":{"k":{"const":"x"},"v":{"enum":[1,2]}},"required":["k","v"]},
          {"type":"object","properties":{"k":{"const":"xy"},"v":{"anyOf":[{"const":true},
             {"type":"array","items":{"const":1},"maxItems":1}]}},"required":["k","v"]},
          {"enum":[1,12,null,"k"]}]})",
      documents,
      combined({"{\"k\":", "\"", "k", "x", "y", ",", "\"v\":", "1", "2", "true", "[", "]", "}",
                "null", ":"}));
}

// The same schema inside two choices: behind its text both go on.
TEST(JsonGrammarExact, ChoicesThatShareAPart) {
  const Documents values = concatenated({{"["}, {"1", "1,1", ""}, {"]"}});
  const Documents documents =
      united({concatenated({{"{\"k\":"}, values, {",\"a\":1}"}}),
              concatenated({{"{\"k\":"}, values, {",\"b\":2}"}}),
              concatenated({{"["}, values, {"]"}}), concatenated({{"["}, values, {",null]"}})});
  expect_exact(
      R"({"$defs":{"l":{"type":"array","items":{"const":1},"maxItems":2}},"anyOf":[
          {"type":"object","properties":{"k":{"$ref":"#/$defs/l"},"a":{"const":1}},"required":["k","a"]},
          {"type":"object","properties":{"k":{"$ref":"#/$defs/l"},"b":{"const":2}},"required":["k","b"]},
          {"type":"array","prefixItems":[{"$ref":"#/$defs/l"}],"items":false,"minItems":1},
          {"type":"array","prefixItems":[{"$ref":"#/$defs/l"},{"type":"null"}],"items":false,"minItems":2}]})",
      documents, combined({"{\"k\":", "[", "]", "1", "2", ",", "\"", "a", "b", ":", "}", "null"}));
}

TEST(JsonGrammarExact, WhiteSpaceIsBounded) {
  const Documents space = {"", " ", "\n", " \n", "\n ", "  ", "\n\n"};
  const Documents documents = concatenated({{"{"},
                                            space,
                                            {"\"a\""},
                                            space,
                                            {":"},
                                            space,
                                            {"["},
                                            space,
                                            {"1"},
                                            space,
                                            {"]"},
                                            space,
                                            {"}"}});
  expect_exact(
      R"({"type":"object","properties":{"a":{"type":"array","items":{"const":1},"minItems":1,"maxItems":1}},
                   "required":["a"]})",
      documents, combined({"{", "\"a\"", ":", "[", "1", "]", "}", " ", "\n"}), {}, 2, 500);
}

// To a depth of three: a list of lists of itself.
TEST(JsonGrammarExact, RecursiveReferences) {
  Documents documents = {"[]"};
  for (int depth = 0; depth < 3; ++depth) {
    const Documents inner = documents;
    documents.merge(concatenated({{"["}, inner, {"]"}}));
    documents.merge(concatenated({{"["}, inner, {","}, inner, {"]"}}));
  }
  const auto judged = [](const std::string& text) {
    int depth = 0, deepest = 0;
    for (const char c : text)
      depth += c == '[' ? 1 : c == ']' ? -1 : 0, deepest = std::max(deepest, depth);
    return deepest <= 3;
  };
  expect_exact(R"({"type":"array","items":{"$ref":"#"},"maxItems":2})", documents,
               combined({"[", "]", ","}), judged);
}

}  // namespace
}  // namespace hadal::test
