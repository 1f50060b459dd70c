// What the check of a case found: the worst error in units of its bound.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <vector>

namespace hadal::bench {

class Check {
 public:
  // One element: |actual - expected| against a bound; NaN anywhere fails.
  void add(double actual, double expected, double bound) {
    const double error = std::fabs(actual - expected);
    const double ratio = error == 0 ? 0.0 : error / bound;
    worst_ = ratio <= worst_ ? worst_ : (ratio < kFailed ? ratio : kFailed);
  }
  // Something that must be equal to the bit.
  void exact(bool equal) { worst_ = equal ? worst_ : kFailed; }

  [[nodiscard]] double worst() const { return worst_; }
  [[nodiscard]] bool ok() const { return worst_ <= 1.0; }

 private:
  static constexpr double kFailed = std::numeric_limits<double>::infinity();
  double worst_ = 0.0;
};

// At most `wanted` of 0 .. count-1, ascending: the first, the last, and others by seed.
[[nodiscard]] inline std::vector<uint32_t> sample_of(uint32_t count, uint32_t wanted,
                                                     uint32_t seed = 1) {
  std::set<uint32_t> chosen;
  if (count) chosen = {0, count - 1};
  std::mt19937 engine(seed);
  while (chosen.size() < wanted && chosen.size() < count) {
    chosen.insert(uint32_t(uint64_t{engine()} * count >> 32));
  }
  return {chosen.begin(), chosen.end()};
}

}  // namespace hadal::bench
