// Element-wise comparison against a reference with a bound of its own per element.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace hadal::test {

// What one comparison found; `ok` only if NaN and infinity stand at the same places and every other
// element lies within its bound.
struct Comparison {
  bool ok = true;
  size_t elements = 0;
  double worst_ratio = 0.0;  // error / bound
  size_t worst_index = 0;
  double worst_actual = 0.0, worst_expected = 0.0;
  std::string failure;  // first reason, empty when ok
};

// bound(i) >= 0 is the largest allowed |actual[i] - expected[i]|.
[[nodiscard]] Comparison compare(std::span<const float> actual, std::span<const double> expected,
                                 const std::function<double(size_t)>& bound);

// compare() as a gtest assertion; prints the worst ratio, index, values and the command that reruns
// the case, on success too. `columns` turns an index into (row, column).
[[nodiscard]] ::testing::AssertionResult matches(const std::string& what,
                                                 std::span<const float> actual,
                                                 std::span<const double> expected, size_t columns,
                                                 const std::function<double(size_t)>& bound);

}  // namespace hadal::test
