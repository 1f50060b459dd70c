// The kept inputs of a fuzz target: files of tests/fuzz/seeds/TARGET, in order of their names.
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
  std::sort(seeds.begin(), seeds.end(),
            [](const Seed& a, const Seed& b) { return a.name < b.name; });
  return seeds;
}

}  // namespace hadal::fuzz
