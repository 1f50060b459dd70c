// What the FP8 GEMMs' benches share: the policy of --policy, and the bound of the path taken.
#pragma once

#include <string>

#include "hadal/gemm_path.h"
#include "support/tolerance.h"

namespace hadal::bench {

[[nodiscard]] inline GemmPolicy policy_of(const std::string& name) {
  GemmPolicy policy;
  policy.batch_invariant = name == "invariant";
  policy.coarse_sums = name == "coarse";
  return policy;
}

// Matrix units have bounds of their own (tests/support/tolerance.h).
template <class Config>
[[nodiscard]] double path_bound(const Config& config, uint32_t k, double value, double magnitude) {
  switch (config.path) {
    case GemmPath::kCoopMat:
      return test::fp8_gemm_coopmat_bound(k, config.gpu_tile.coop_k, value, magnitude);
    case GemmPath::kCoopMatFp8:
      return test::fp8_gemm_coopmat_bound(k, config.gpu_tile.coop_k, value, magnitude, 0x1p-13);
    default: return test::fp8_gemm_bound(k, value, magnitude);
  }
}

}  // namespace hadal::bench
