// The fuzz targets of the engine's C ABI (fuzz/engine.h) on their kept seeds and on random bytes,
// with hadal's own host and the validation layer.
#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "fuzz/engine.h"
#include "support/fuzz.h"

namespace hadal::test {
namespace {

class CapiEngineFuzzGpu : public ::testing::TestWithParam<fuzz::EngineTarget> {
 protected:
  // The world goes with the suite: before the driver's libraries are unloaded.
  static void SetUpTestSuite() { world_ = std::make_unique<fuzz::EngineWorld>(); }
  static void TearDownTestSuite() { world_.reset(); }
  static inline std::unique_ptr<fuzz::EngineWorld> world_;
};

TEST_P(CapiEngineFuzzGpu, RefusesOrDoes) {
  if (GetParam().device && !world_->has_device()) {
    GTEST_SKIP() << "no Vulkan device or validation layer";
  }
  int accepted = 0;
  const std::vector<fuzz::Seed> seeds = fuzz::engine_seeds(GetParam().name);
  for (const fuzz::Seed& seed : seeds) {
    const fuzz::Outcome outcome = GetParam().run(*world_, seed.bytes);
    ASSERT_EQ(outcome.fault, "") << seed.name;
    accepted += outcome.accepted;
  }
  std::mt19937 random(38);
  for (testing::FuzzRounds rounds(GetParam().rounds); rounds.next();) {
    // Bytes of any kind, or a seed with some changed.
    std::vector<uint8_t> bytes = seeds[random() % seeds.size()].bytes;
    if (rounds.done() % 4 == 0) bytes.resize(fuzz::kEngineBytes);
    for (size_t n = rounds.done() % 4 ? random() % 4 : bytes.size(); n > 0 && !bytes.empty(); --n) {
      bytes[random() % bytes.size()] = uint8_t(random());
    }
    const fuzz::Outcome outcome = GetParam().run(*world_, bytes);
    ASSERT_EQ(outcome.fault, "") << "round " << rounds.done();
    accepted += outcome.accepted;
  }
  EXPECT_GT(accepted, 0);
  EXPECT_EQ(world_->messages(), 0);
}

TEST(CapiEngineFuzzTargets, TheBuildKnowsEveryOne) {
  std::string all;
  for (const fuzz::EngineTarget& target : fuzz::engine_targets()) {
    all += (all.empty() ? "" : " ") + std::string(target.name);
  }
  EXPECT_EQ(all, HADAL_FUZZ_ENGINE);
}

INSTANTIATE_TEST_SUITE_P(, CapiEngineFuzzGpu,
                         ::testing::ValuesIn(fuzz::engine_targets().begin(),
                                             fuzz::engine_targets().end()),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace hadal::test
