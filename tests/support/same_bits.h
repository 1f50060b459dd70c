// Bit equality where arithmetic is exact: zeros keep their sign, a NaN equals every NaN.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace hadal::test {

[[nodiscard]] inline bool same_bits(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}
[[nodiscard]] inline bool same_bits(uint8_t a, uint8_t b) {
  return a == b;
}

template <class T>
[[nodiscard]] ::testing::AssertionResult same_bits(const std::vector<T>& actual,
                                                   const std::vector<T>& expected, size_t columns) {
  if (actual.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << actual.size() << " elements, expected " << expected.size();
  }
  for (size_t i = 0; i < actual.size(); ++i) {
    if (same_bits(actual[i], expected[i])) continue;
    return ::testing::AssertionFailure() << "(" << i / columns << ", " << i % columns
                                         << "): " << +actual[i] << " instead of " << +expected[i];
  }
  return ::testing::AssertionSuccess();
}

}  // namespace hadal::test
