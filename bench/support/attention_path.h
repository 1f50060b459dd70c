// What the attention kernels' benches share: the policy of --attention, and the bound of matrices.
#pragma once

#include <string_view>

#include "hadal/attention_path.h"
#include "support/tolerance.h"

namespace hadal::bench {

[[nodiscard]] inline AttentionPolicy attention_policy(std::string_view name) {
  for (const auto path : {AttentionPath::kPortable, AttentionPath::kLanes, AttentionPath::kShared,
                          AttentionPath::kCoopMat}) {
    if (name == attention_path_name(path)) return {path};
  }
  return {};
}

// Of element i of rows of `width` results, whose operands are at most 1.0625 (what an FP8 row makes
// of 1).
template <class Reference>
[[nodiscard]] double coopmat_bound(const AttentionTile& tile, double dims, double keys,
                                   double factors, double scale, const Reference& r, size_t i,
                                   uint32_t width) {
  test::AttentionCoopMat c;
  c.dims = dims, c.coop_k = tile.coop_k, c.keys = keys, c.factors = factors;
  c.score_magnitude = r.score_magnitude[i / width], c.score_range = r.score_range[i / width];
  c.largest_product = scale * 1.0625, c.largest_value = 1.0625;
  return test::attention_coopmat_bound(c, r.magnitude[i], r.value[i]);
}

}  // namespace hadal::bench
