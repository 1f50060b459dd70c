// What becomes of a preempted request's pages: the comparison of costs, and which host pages are
// taken.
#include "hadal/runtime/swap.h"

#include <gtest/gtest.h>

namespace hadal::runtime {
namespace {

// The comparison of swap.h, term by term.
TEST(SwapHost, KeepsWhatIsDearerToComputeAgain) {
  SwapPolicy policy;
  RunningMean token, row, unknown;
  token.add(1e-4), row.add(1e-3);
  const SwapPolicy::Rows rows{.prompt = 100, .whole_pages = 64, .generated = 20, .pages = 2};
  EXPECT_FALSE(policy.keeps(rows, token, row)) << "a page's time is unknown";
  policy.moved(4, 4 * 7.4e-3);  // 2 * 2 * 7.4e-3 = 0.0296 < 100 * 1e-4 + 20 * 1e-3 = 0.03
  EXPECT_TRUE(policy.keeps(rows, token, row));
  EXPECT_FALSE(policy.keeps(rows, unknown, row));
  EXPECT_FALSE(policy.keeps(rows, token, unknown));
  EXPECT_TRUE(policy.keeps({.prompt = 0, .generated = 30, .pages = 1}, unknown, row));
  EXPECT_TRUE(policy.keeps({.prompt = 200, .generated = 0, .pages = 1}, token, unknown));
  EXPECT_FALSE(policy.keeps({.prompt = 140, .generated = 0, .pages = 1}, token, row));
  policy.returned(128, 32);  // a quarter: 0.03 - 0.25 * 64 * 1e-4 = 0.0284
  EXPECT_FALSE(policy.keeps(rows, token, row));
  policy.returned(0, 0);  // says nothing
  const SwapPolicy::Rows fewer{.prompt = 100, .whole_pages = 12, .generated = 20, .pages = 2};
  EXPECT_TRUE(policy.keeps(fewer, token, row));  // 0.03 - 0.25 * 12 * 1e-4 = 0.0297
}

TEST(SwapHost, SpaceIsHandedOutOnce) {
  SwapSpace space(4);
  EXPECT_EQ(space.take(3), (std::vector<uint32_t>{0, 1, 2}));
  space.give_back(std::vector<uint32_t>{1});
  EXPECT_EQ(space.free_pages(), 2u);
  EXPECT_EQ(space.take(2), (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(space.free_pages(), 0u);
  EXPECT_TRUE(space.take(0).empty());
}

}  // namespace
}  // namespace hadal::runtime
