// The fuzz targets of what reads strangers' files and bytes (fuzz/parsers.h), on their kept seeds,
// on every beginning of these and on seeds with bytes changed.
#include "fuzz/parsers.h"

#include <gtest/gtest.h>

#include <random>

#include "fuzz/seeds.h"

namespace hadal::fuzz {
namespace {

std::string names(std::span<const ParserTarget> targets) {
  std::string all;
  for (const ParserTarget& target : targets)
    all += (all.empty() ? "" : " ") + std::string(target.name);
  return all;
}

TEST(ParsersFuzz, TheBuildKnowsEveryTarget) {
  EXPECT_EQ(names(parser_targets()), HADAL_FUZZ_PARSERS);
}

TEST(ParsersFuzz, HexIsBytes) {
  const std::string text = "# 12 is not one\n00 ff\n 0a1b# nor this\n7f";
  EXPECT_EQ(from_hex({text.begin(), text.end()}),
            (std::vector<uint8_t>{0x00, 0xff, 0x0a, 0x1b, 0x7f}));
}

class ParserFuzz : public ::testing::TestWithParam<ParserTarget> {};

TEST_P(ParserFuzz, SeedsAndTheirNeighboursAreTakenOrRefused) {
  const std::vector<Seed> seeds = seeds_of(GetParam().name);
  std::mt19937 random(31);
  int accepted = 0, refused = 0;
  for (const Seed& seed : seeds) {
    accepted += GetParam().run(seed.bytes).accepted;
    for (int round = 0; round < 300; ++round) {
      std::vector<uint8_t> bytes = seed.bytes;
      if (round < 100) bytes.resize(bytes.size() * size_t(round) / 100);
      for (size_t n = round < 100 || bytes.empty() ? 0 : 1 + random() % 3; n > 0; --n) {
        bytes[random() % bytes.size()] ^= uint8_t(1 << random() % 8);
      }
      // Of exactly its bytes, so that a read behind them is seen.
      const auto copy = std::make_unique<uint8_t[]>(bytes.size());
      std::copy(bytes.begin(), bytes.end(), copy.get());
      const Outcome outcome = GetParam().run({copy.get(), bytes.size()});
      ASSERT_EQ(outcome.fault, "") << seed.name << ", round " << round;
      refused += !outcome.accepted;
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
}

INSTANTIATE_TEST_SUITE_P(, ParserFuzz,
                         ::testing::ValuesIn(parser_targets().begin(), parser_targets().end()),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace hadal::fuzz
