// The comparator must fail on every kind of wrong result: a right one is mutated and must be
// refused.
#include "support/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/random.h"

namespace hadal::test {
namespace {

constexpr size_t kRows = 64, kColumns = 48;

struct Fixture {
  std::vector<float> actual;
  std::vector<double> expected;
  Fixture() {
    Random random(7);
    for (size_t i = 0; i < kRows * kColumns; ++i) {
      actual.push_back(random.normal());
      expected.push_back(double(actual.back()) * (1 + 1e-7));
    }
  }
  [[nodiscard]] bool ok() const {
    return compare(actual, expected, [&](size_t i) { return 1e-6 * std::fabs(expected[i]) + 1e-9; })
        .ok;
  }
};

TEST(CompareHost, AcceptsARightResult) {
  EXPECT_TRUE(Fixture().ok());
}

TEST(CompareHost, RefusesAZeroedRow) {
  Fixture f;
  std::fill_n(f.actual.begin() + 17 * kColumns, kColumns, 0.0f);
  EXPECT_FALSE(f.ok());
}

TEST(CompareHost, RefusesTwoSwappedRows) {
  Fixture f;
  std::swap_ranges(f.actual.begin(), f.actual.begin() + kColumns, f.actual.begin() + kColumns);
  EXPECT_FALSE(f.ok());
}

TEST(CompareHost, RefusesAShiftedScale) {
  Fixture f;
  for (size_t c = 0; c < kColumns; ++c) f.actual[5 * kColumns + c] *= 1.001f;
  EXPECT_FALSE(f.ok());
}

TEST(CompareHost, RefusesASignFlipAndALargeNegative) {
  Fixture f;
  f.actual[9] = -f.actual[9];
  EXPECT_FALSE(f.ok());
  Fixture g;
  g.expected[3] = -100.0;
  g.actual[3] = -50.0f;
  EXPECT_FALSE(g.ok());
}

TEST(CompareHost, RefusesOneNanOrInfinityInEitherPlace) {
  Fixture f;
  f.actual[100] = NAN;
  EXPECT_FALSE(f.ok());
  Fixture g;
  g.expected[100] = NAN;
  EXPECT_FALSE(g.ok());
  Fixture h;
  h.actual[100] = INFINITY;
  EXPECT_FALSE(h.ok());
  Fixture both;
  both.actual[100] = NAN;
  both.expected[100] = NAN;
  EXPECT_TRUE(both.ok());
}

TEST(CompareHost, RefusesAnotherLengthAndANanBound) {
  Fixture f;
  f.actual.pop_back();
  EXPECT_FALSE(f.ok());
  Fixture g;
  EXPECT_FALSE(compare(g.actual, g.expected, [](size_t) { return double(NAN); }).ok);
}

}  // namespace
}  // namespace hadal::test
