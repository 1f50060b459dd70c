// Token masks of JSON grammars over a vocabulary of V3's size: microseconds per mask along
// documents. No device.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "hadal/runtime/json_grammar.h"
#include "support/random.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kVocab = 129280;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

// What a byte-level vocabulary of that size has: bytes, numbers to 999, words with and without a
// space, CJK, parts of characters, runs of space, and a few thousand with quotes and brackets.
std::vector<std::string> make_tokens(const model::Tokenizer& tokenizer) {
  std::set<std::string> seen;
  std::vector<std::string> tokens;
  const auto add = [&](const std::string& bytes) {
    if (tokens.size() < kVocab && seen.insert(bytes).second) tokens.push_back(bytes);
  };
  for (int b = 0; b < 256; ++b) add(std::string(1, char(b)));
  for (uint32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (const auto bytes = tokenizer.plain_bytes(id)) add(*bytes);
  }
  for (int n = 0; n < 1000; ++n) add(std::to_string(n));
  for (size_t n = 2; n <= 80; ++n) {
    add(std::string(n, ' ')), add("\n" + std::string(n, ' ')), add(std::string(n / 2, '\t'));
  }
  test::Random random(1);
  const std::string marks = "\"\"\"\"{}[]:,.;()<>'\\\n =-_/";
  while (tokens.size() < 8000) {
    std::string bytes = random.below(3) ? "" : " ";
    for (uint32_t n = 2 + random.below(3); n > 0; --n)
      bytes += marks[random.below(uint32_t(marks.size()))];
    add(bytes);
  }
  while (tokens.size() < 40000) {  // two or three ideographs, or one and a part of another
    std::string bytes;
    for (uint32_t n = 1 + random.below(3); n > 0; --n) {
      const uint32_t c = 0x4e00 + random.below(3000);
      bytes += {char(0xe0 | c >> 12), char(0x80 | (c >> 6 & 63)), char(0x80 | (c & 63))};
    }
    if (random.below(20) == 0) bytes.pop_back();
    add(bytes);
  }
  while (tokens.size() < kVocab) {
    std::string bytes = random.below(2) ? " " : "";
    for (uint32_t n = 3 + random.below(8); n > 0; --n)
      bytes += char('a' + random.below(1 + random.below(26)));
    add(bytes);
  }
  return tokens;
}

struct Case {
  const char* name;
  std::string schema, document;
};

std::vector<Case> cases() {
  std::string people, numbers = "[";
  for (int i = 0; i < 12; ++i) {
    people += fmt::format(
        R"({}{{"name": "ada lovelace the {}th", "age": {}, "email": null, "tags": ["red", "blue"],
  "address": {{"street": "some street of some town {}", "zip": "{:05}"}}}})",
        i ? ",\n" : "", i, 20 + i, i, 12345 + i);
    numbers += fmt::format("{}{{\"x\": {}.25, \"y\": -{}, \"when\": \"2026-11-{:02}T10:00:00Z\"}}",
                           i ? ", " : "", i * 37, i * 991, i + 1);
  }
  return {
      {"any object", "", "{\"people\": [" + people + "], \"numbers\": " + numbers + "]}"},
      {"people",
       R"({"type":"object","properties":{"people":{"type":"array","items":{"$ref":"#/$defs/p"}}},"required":["people"],
           "additionalProperties":false,"$defs":{"p":{"type":"object","additionalProperties":false,"properties":{
           "name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},"email":{"type":["string","null"]},
           "tags":{"type":"array","items":{"enum":["red","green","blue"]},"maxItems":4},"address":{"type":"object",
           "additionalProperties":false,"properties":{"street":{"type":"string"},"zip":{"type":"string","pattern":"^\\d{5}$"}},
           "required":["street","zip"]}},"required":["name","age","email","tags","address"]}}})",
       "{\"people\": [" + people + "]}"},
      {"short strings",
       R"({"type":"array","items":{"type":"object","additionalProperties":{"anyOf":[{"type":"string","maxLength":60},
           {"type":"integer"},{"type":"null"},{"type":"array","items":{"type":"string","maxLength":20}},{"type":"object",
           "additionalProperties":{"type":"string","maxLength":80}}]}}})",
       "[" + people + "]"},
      {"numbers, dates",
       R"({"type":"array","items":{"type":"object","properties":{"x":{"type":"number","minimum":0},
           "y":{"type":"number"},"when":{"type":"string","format":"date-time"}},"required":["x","y","when"]}})",
       numbers + "]"},
      {"pattern of any text", R"({"type":"string","pattern":"^[A-Z].*\\.$","maxLength":400})",
       "\"Once upon a time there was a fox in the wood, and " + std::string(200, 'x') +
           " and so on to the end.\""},
  };
}

struct Figures {
  double p50, p99, worst;
};
Figures figures(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) { return values[size_t(share * double(values.size() - 1))]; };
  return {at(0.5), at(0.99), values.back()};
}

int run(const char* model_dir) {
  const auto tokenizer = model::Tokenizer::load(model_dir);
  if (!tokenizer.ok()) return fmt::print(stderr, "{}\n", tokenizer.status().message()), 1;
  std::vector<std::string> tokens = make_tokens(*tokenizer);
  std::unordered_map<std::string, uint32_t> ids;
  for (uint32_t id = 0; id < tokens.size(); ++id) ids.emplace(tokens[id], id);
  tokens.emplace_back("<end>");
  const uint32_t end = uint32_t(tokens.size() - 1);
  auto begin = Clock::now();
  const auto vocabulary = runtime::GrammarVocabulary::create(tokens, std::span(&end, 1)).value();
  fmt::print("vocabulary of {} tokens: {:.1f} ms\n", tokens.size(),
             microseconds_since(begin) / 1000);
  fmt::print("{:<20} {:>11} {:>7} {:>24} {:>24}\n", "grammar", "compile us", "tokens",
             "first us p50/p99/worst", "next us p50/p99/worst");
  for (const Case& c : cases()) {
    begin = Clock::now();
    const auto grammar = runtime::JsonGrammar::compile(c.schema, vocabulary);
    const double compile_us = microseconds_since(begin);
    if (!grammar.ok()) return fmt::print(stderr, "{}\n", grammar.status().message()), 1;
    std::vector<double> first, next;
    std::vector<uint32_t> generated, bits((tokens.size() + 31) / 32);
    // A request on a new grammar, then others that find what it left.
    for (int request = 0; request < 9; ++request) {
      const runtime::TokenMask mask = (*grammar)->mask();
      generated.clear();
      for (size_t at = 0; at < c.document.size();) {
        std::fill(bits.begin(), bits.end(), 0u);
        begin = Clock::now();
        mask(generated, bits);
        (request == 0 ? first : next).push_back(microseconds_since(begin));
        size_t length = std::min<size_t>(c.document.size() - at, 24);
        while (!ids.count(c.document.substr(at, length))) --length;
        const uint32_t id = ids.at(c.document.substr(at, length));
        if (!(bits[id / 32] >> (id % 32) & 1)) {
          return fmt::print(stderr, "{}: wrong mask at byte {} of {}\n", c.name, at, c.document), 1;
        }
        generated.push_back(id), at += length;
      }
    }
    const Figures a = figures(first), b = figures(next);
    fmt::print("{:<20} {:>11.0f} {:>7} {:>24} {:>24}\n", c.name, compile_us, first.size(),
               fmt::format("{:.0f} / {:.0f} / {:.0f}", a.p50, a.p99, a.worst),
               fmt::format("{:.0f} / {:.0f} / {:.0f}", b.p50, b.p99, b.worst));
  }
  return 0;
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  return hadal::run(argc > 1 ? argv[1] : HADAL_SOURCE_DIR "/examples/models/fables");
}
