// Who goes where: rows per expert of a batch that chooses top_k of `used` experts per token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace hadal::bench {

// "even": the same number of rows for each used expert (one more for the first ones);
// "random": every token draws top_k different experts, by seed. Experts beyond `used` stay empty.
[[nodiscard]] inline std::vector<uint32_t> rows_per_expert(const std::string& routing,
                                                           uint32_t experts, uint32_t used,
                                                           uint32_t tokens, uint32_t top_k) {
  used = std::min(used, experts), top_k = std::min(top_k, used);
  std::vector<uint32_t> rows(experts);
  if (routing == "even") {
    for (uint32_t e = 0; e < used; ++e) {
      rows[e] = tokens * top_k / used + (e < tokens * top_k % used);
    }
    return rows;
  }
  std::mt19937 engine(1);
  std::vector<uint32_t> order(used);
  for (uint32_t e = 0; e < used; ++e) order[e] = e;
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t i = 0; i < top_k; ++i) {  // the first top_k of a shuffle
      std::swap(order[i], order[i + uint64_t{engine()} * (used - i) / (uint64_t{1} << 32)]);
      ++rows[order[i]];
    }
  }
  return rows;
}

}  // namespace hadal::bench
