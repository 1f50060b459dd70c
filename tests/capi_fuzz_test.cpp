// The fuzz targets of the C ABI (fuzz/capi.h) on their kept seeds and on random bytes, with
// hadal's own host and the validation layer.
#include "fuzz/capi.h"

#include <gtest/gtest.h>

#include <random>

#include "support/capi.h"
#include "support/fuzz.h"

namespace hadal::test {
namespace {

class CapiFuzzGpu : public CapiTest, public ::testing::WithParamInterface<fuzz::CapiTarget> {
 protected:
  void SetUp() override {
    CapiTest::SetUp();
    if (!alive_) return;
    world_.query = host_query(&instance_, devices_[0]);
    world_.context = context_;
    world_.memory = buffer(1 << 16);
    world_.commands = host_begin(&device_, device_.pool);
  }
  void TearDown() override {
    if (alive_) {
      EXPECT_EQ(HOST_DEVICE_FN(&device_, EndCommandBuffer)(world_.commands), VK_SUCCESS);
    }
    CapiTest::TearDown();
  }
  fuzz::CapiWorld world_;
};

TEST_P(CapiFuzzGpu, RefusesOrRecords) {
  int accepted = 0;
  for (const fuzz::Seed& seed : fuzz::capi_seeds(GetParam().name)) {
    const fuzz::Outcome outcome = GetParam().run(world_, seed.bytes);
    ASSERT_EQ(outcome.fault, "") << seed.name;
    accepted += outcome.accepted;
  }
  std::mt19937 random(30);
  for (testing::FuzzRounds rounds(100); rounds.next();) {
    std::vector<uint8_t> bytes(fuzz::kCapiBytes);
    for (uint8_t& byte : bytes) byte = uint8_t(random());
    const fuzz::Outcome outcome = GetParam().run(world_, bytes);
    ASSERT_EQ(outcome.fault, "") << "round " << rounds.done();
    accepted += outcome.accepted;
  }
  EXPECT_GT(accepted, 0);
}

TEST(CapiFuzzTargets, TheBuildKnowsEveryOne) {
  std::string all;
  for (const fuzz::CapiTarget& target : fuzz::capi_targets()) {
    all += (all.empty() ? "" : " ") + std::string(target.name);
  }
  EXPECT_EQ(all, HADAL_FUZZ_CAPI);
}

INSTANTIATE_TEST_SUITE_P(, CapiFuzzGpu,
                         ::testing::ValuesIn(fuzz::capi_targets().begin(),
                                             fuzz::capi_targets().end()),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace hadal::test
