// The scalar path of bf16_gemm and bf16_grouped_gemm (lib/bf16_gemm_scalar_tile.glsl). Private.
#pragma once

#include <cstdint>

#include "hadal/caps.h"
#include "hadal/gemm_path.h"

namespace hadal {

// Makes `config`, a Bf16GemmConfig or Bf16GroupedGemmConfig with tile_m chosen, one of the scalar
// path where the device has scalar uniforms and neither n is narrower than a tile nor k than a
// step. One column per invocation and long steps, by measurement (bf16_gemm.md).
template <class Config>
void try_scalar_path(uint32_t n, uint32_t k, const Caps& caps, Config& config) {
  const uint32_t width = caps.subgroup_size;
  constexpr uint32_t kLongestStep = 32;
  if (k < kLongestStep) return;
  if (!caps.scalar_uniforms || n < width || n / width >= caps.max_workgroup_count[1]) return;
  config.path = GemmPath::kScalar;
  config.workgroup_size = width;
  config.tile_n = 1;
  config.step_k = config.tile_m == 1 ? 32 : 16;
  config.row_group = config.tile_m < 8 ? config.tile_m : 8;
}

}  // namespace hadal
