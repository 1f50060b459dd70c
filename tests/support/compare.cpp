#include "support/compare.h"

#include <fmt/format.h>

#include <cmath>

namespace hadal::test {

Comparison compare(std::span<const float> actual, std::span<const double> expected,
                   const std::function<double(size_t)>& bound) {
  Comparison c;
  c.elements = expected.size();
  if (actual.size() != expected.size()) {
    c.ok = false;
    c.failure = fmt::format("{} elements, expected {}", actual.size(), expected.size());
    return c;
  }
  for (size_t i = 0; i < actual.size(); ++i) {
    const double a = actual[i], e = expected[i];
    const bool special = !std::isfinite(a) || !std::isfinite(e);
    const bool same_special = (std::isnan(a) && std::isnan(e)) || a == e;
    double ratio = 0.0;
    if (special) {
      ratio = same_special ? 0.0 : INFINITY;
    } else {
      const double error = std::fabs(a - e), limit = bound(i);
      ratio = error == 0.0 ? 0.0 : limit > 0.0 ? error / limit : INFINITY;
      if (std::isnan(limit)) ratio = INFINITY;
    }
    if (ratio > c.worst_ratio || i == 0) {
      c.worst_ratio = ratio;
      c.worst_index = i;
      c.worst_actual = a;
      c.worst_expected = e;
    }
    if (ratio > 1.0 && c.ok) {
      c.ok = false;
      c.failure = fmt::format("element {}: {} instead of {}", i, a, e);
    }
  }
  return c;
}

::testing::AssertionResult matches(const std::string& what, std::span<const float> actual,
                                   std::span<const double> expected, size_t columns,
                                   const std::function<double(size_t)>& bound) {
  const Comparison c = compare(actual, expected, bound);
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  const size_t width = columns ? columns : 1;
  const std::string text = fmt::format(
      "{}: worst error/bound {:.3g} at ({}, {}): {} against {} ({} elements){}{} "
      "[--gtest_filter={}.{}]",
      what, c.worst_ratio, c.worst_index / width, c.worst_index % width, c.worst_actual,
      c.worst_expected, c.elements, c.ok ? "" : "; ", c.failure,
      info ? info->test_suite_name() : "?", info ? info->name() : "?");
  if (!c.ok) return ::testing::AssertionFailure() << text;
  fmt::print("  {}\n", text);
  return ::testing::AssertionSuccess();
}

}  // namespace hadal::test
