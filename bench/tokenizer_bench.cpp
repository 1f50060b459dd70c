// MB/s of Tokenizer::encode on one core: natural text and texts that break quadratic tokenizers,
// for the fables model and a generated vocabulary of 128,000. Checks decode(encode(x)) == x first.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "hadal/model/tokenizer.h"
#include "support/big_tokenizer.h"

namespace {

using hadal::model::Tokenizer;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string repeat(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

// Letters in the frequencies of `natural`, so that hardly a word comes twice and no cache helps.
std::string shuffled(const std::string& natural, size_t bytes) {
  std::string text;
  uint64_t state = 1;
  while (text.size() < bytes) {
    text += natural[hadal::test::big_tokenizer_detail::next_random(state) % natural.size()];
  }
  return text;
}

struct Text {
  const char* name;
  std::string text;
};

// Median of at least five runs or one second. No speed for a wrong result.
bool measure(const char* model, const Tokenizer& tokenizer, const Text& text) {
  std::vector<double> times;
  size_t tokens = 0;
  for (double total = 0; times.size() < 5 || (total < 1 && times.size() < 100);) {
    const auto start = Clock::now();
    const auto ids = tokenizer.encode(text.text);
    times.push_back(seconds_since(start));
    total += times.back();
    const auto back = ids.ok() ? tokenizer.decode(*ids) : ids.status();
    if (!back.ok() || *back != text.text) {
      fmt::print("{:8} {:14} FAILED {}\n", model, text.name, back.status().message());
      return false;
    }
    tokens = ids->size();
  }
  std::sort(times.begin(), times.end());
  const double mb = static_cast<double>(text.text.size()) * 1e-6;
  fmt::print("{:8} {:14} {:5.2f} MB {:8} tokens {:8.2f} MB/s (p10 {:.2f}, p90 {:.2f})\n", model,
             text.name, mb, tokens, mb / times[times.size() / 2],
             mb / times[times.size() - 1 - times.size() / 10], mb / times[times.size() / 10]);
  return true;
}

}  // namespace

int main() {
  const std::filesystem::path root = HADAL_SOURCE_DIR;
  const std::string natural = read(root / "tests/golden/fables_heldout.txt");
  std::string ascii = natural;
  std::erase_if(ascii, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  constexpr size_t kBytes = 1'000'000;
  const std::vector<Text> texts = {{"natural", repeat(natural, kBytes)},
                                   {"shuffled", shuffled(ascii, kBytes)},
                                   {"short natural", natural.substr(0, 200)},
                                   {"letter a", std::string(kBytes, 'a')},
                                   {"spaces", std::string(kBytes, ' ')},
                                   {"newlines", std::string(kBytes, '\n')},
                                   {"digits", repeat("0123456789", kBytes)},
                                   {"cjk", repeat("\u4eba\u4e4b\u521d\u6027\u672c\u5584", kBytes)},
                                   {"punctuation", repeat("!?.,;(){}", kBytes)},
                                   {"emoji", repeat("\U0001F600\U0001F3FD\u200D", kBytes)},
                                   {"controls", std::string(kBytes, '\x01')}};

  const auto fables = Tokenizer::load(root / "examples/models/fables");
  const std::string json = hadal::test::big_tokenizer_json({128000, 1, natural});
  const auto start = Clock::now();
  const auto big = Tokenizer::parse(json, "", "generated");
  fmt::print("128000   load           {:5.2f} MB {:.0f} ms\n",
             static_cast<double>(json.size()) * 1e-6, seconds_since(start) * 1e3);
  if (!fables.ok() || !big.ok()) {
    fmt::print("{}\n{}\n", fables.status().message(), big.status().message());
    return 1;
  }
  bool ok = true;
  for (const Text& text : texts) ok = measure("fables", *fables, text) && ok;
  for (const Text& text : texts) ok = measure("128000", *big, text) && ok;
  return ok ? 0 : 1;
}
