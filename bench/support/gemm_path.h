// What the FP8 GEMMs' benches share: the printed path, and the bound of the path taken.
#pragma once

#include <string>

#include "hadal/gemm_path.h"
#include "hadal/tuning.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {

// path_of(config), and ", tuned" where it is the choice of the policy's table. m as in the table.
template <class Config>
[[nodiscard]] std::string tuned_path_of(const Config& config, TunedKernel kernel, uint32_t m,
                                        uint32_t n, uint32_t k, const GemmPolicy& policy) {
  const TunedChoice* tuned = policy.tuning ? policy.tuning->find(kernel, m, n, k) : nullptr;
  const bool taken = tuned && *tuned == TunedChoice{config.path, config.tile_m, config.tile_n};
  return path_of(config.to_string()) + (taken ? ", tuned" : "");
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
