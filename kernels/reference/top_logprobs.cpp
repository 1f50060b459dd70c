#include "hadal/reference/top_logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace hadal::reference {

LogprobRow logprobs(std::span<const float> logits, uint32_t top) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<double> x(logits.begin(), logits.end());
  for (double& v : x) v = std::isnan(v) ? -kInfinity : v;
  const double largest = *std::max_element(x.begin(), x.end());

  LogprobRow row;
  for (double v : x) {
    const bool none = v == -kInfinity;
    row.distances.push_back(none ? kInfinity : v == largest ? 0.0 : largest - v);
    row.mass += std::exp(-row.distances.back());
  }
  for (double d : row.distances) {
    row.logprobs.push_back(d == kInfinity ? -kInfinity : -d - std::log(row.mass));
  }
  row.top_ids.resize(x.size());
  std::iota(row.top_ids.begin(), row.top_ids.end(), 0u);
  std::stable_sort(row.top_ids.begin(), row.top_ids.end(),
                   [&](uint32_t a, uint32_t b) { return x[a] > x[b]; });
  row.top_ids.resize(top);
  return row;
}

}  // namespace hadal::reference
