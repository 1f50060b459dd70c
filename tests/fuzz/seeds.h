// The kept inputs of a fuzz target: files of tests/fuzz/seeds/TARGET, in order of their names;
// those named *.hex are bytes in hexadecimal, with spaces and line ends wherever these help, and #
// before comments.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz/bytes.h"

namespace hadal::fuzz {

struct Seed {
  std::string name;
  std::vector<uint8_t> bytes;
};

inline std::vector<uint8_t> from_hex(const std::vector<uint8_t>& text) {
  std::vector<uint8_t> bytes;
  int digits = 0;
  bool comment = false;
  for (const uint8_t c : text) {
    comment = c == '#' || (comment && c != '\n');
    const bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (comment || !digit) continue;
    if (digits++ % 2 == 0) bytes.push_back(0);
    bytes.back() = uint8_t(bytes.back() << 4 | (c <= '9' ? c - '0' : c - 'a' + 10));
  }
  return bytes;
}

// Empty where the target has none yet.
inline std::vector<Seed> seeds_of(const std::string& target) {
  std::vector<Seed> seeds;
  std::error_code none;
  const auto dir = std::filesystem::path(HADAL_SOURCE_DIR) / "tests/fuzz/seeds" / target;
  for (const auto& entry : std::filesystem::directory_iterator(dir, none)) {
    std::ifstream in(entry.path(), std::ios::binary);
    seeds.push_back({entry.path().filename().string(),
                     {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()}});
  }
  for (Seed& seed : seeds) {
    if (seed.name.ends_with(".hex")) seed.bytes = from_hex(seed.bytes);
  }
  std::sort(seeds.begin(), seeds.end(),
            [](const Seed& a, const Seed& b) { return a.name < b.name; });
  return seeds;
}

}  // namespace hadal::fuzz
