#include "hadal/reference/moe_permute.h"

#include <algorithm>
#include <cmath>

namespace hadal::reference {

MoePermutePlan moe_permute(const MoePermuteShape& s, const uint32_t* indices) {
  MoePermutePlan plan;
  plan.row_of.assign(size_t(s.tokens) * s.top_k, 0xffffffffu);
  for (uint32_t expert = 0; expert < s.experts; ++expert) {
    const uint32_t begin = uint32_t(plan.row_token.size());
    for (uint32_t i = 0; i < s.tokens * s.top_k; ++i) {
      if (indices[i] != expert) continue;
      plan.row_of[i] = uint32_t(plan.row_token.size());
      plan.row_token.push_back(i / s.top_k);
    }
    const uint32_t end = uint32_t(plan.row_token.size());
    plan.segment_ends.push_back(end);
    for (uint32_t row = begin; row < end; row += s.tile_m) {
      plan.tiles.push_back({expert, row, std::min(row + s.tile_m, end)});
    }
  }
  return plan;
}

MoeCombineResult moe_combine(const MoeCombineShape& s, const MoeCombineInputs& in) {
  MoeCombineResult result;
  for (uint32_t t = 0; t < s.tokens; ++t) {
    for (uint32_t h = 0; h < s.hidden; ++h) {
      const size_t i = size_t(t) * s.hidden + h;
      double value = 0.0, magnitude = 0.0;
      const auto add = [&](double term) { value += term, magnitude += std::fabs(term); };
      if (s.accumulate) add(in.x[i]);
      if (s.has_shared) add(in.shared[i]);
      for (uint32_t slot = 0; slot < s.top_k; ++slot) {
        const size_t pair = size_t(t) * s.top_k + slot;
        if (in.row_of[pair] == 0xffffffffu) continue;
        add(double(in.weights[pair]) * double(in.y[size_t(in.row_of[pair]) * s.hidden + h]));
      }
      result.value.push_back(value);
      result.magnitude.push_back(magnitude);
    }
  }
  return result;
}

}  // namespace hadal::reference
