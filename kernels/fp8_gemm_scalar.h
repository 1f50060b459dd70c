// The scalar path of fp8_gemm and fp8_grouped_gemm: which device takes it, with which tile. Pure.
// Private.
#pragma once

#include <cstdint>
#include <optional>

#include "hadal/caps.h"
#include "hadal/gemm_path.h"

namespace hadal {

struct ScalarTile {
  uint32_t tile_m = 0;     // rows of d per workgroup
  uint32_t tile_n = 0;     // columns of d per invocation
  uint32_t step_k = 0;     // channels per turn of the inner loop
  uint32_t row_group = 0;  // rows whose sums are in registers together
};

// The tile for `rows` of d (of an expert, for the grouped kernel), by measurement (fp8_gemm.md):
// few rows want long steps, which read a row of b in fewer pieces, many rows want wide tiles, which
// share the decoding of a. None where the device has no scalar uniforms or n is narrower than any.
[[nodiscard]] inline std::optional<ScalarTile> scalar_tile(uint32_t rows, uint32_t n,
                                                           const Caps& caps) {
  constexpr ScalarTile kTiles[] = {{1, 1, 64, 1},  {4, 1, 32, 4}, {8, 1, 32, 8},
                                   {16, 1, 32, 8}, {32, 2, 8, 4}, {32, 1, 16, 4}};
  if (!caps.scalar_uniforms || caps.max_workgroup_invocations < caps.subgroup_size) return {};
  for (const ScalarTile& tile : kTiles) {
    const bool tall_enough = tile.tile_m >= rows || tile.tile_m == 32;
    const uint32_t width = tile.tile_n * caps.subgroup_size;
    if (tall_enough && n >= width && n / width < caps.max_workgroup_count[1]) return tile;
  }
  return {};
}

// Makes an Fp8GemmConfig or Fp8GroupedGemmConfig one of the scalar path.
template <class Config>
void set_scalar_tile(const ScalarTile& tile, const Caps& caps, Config& config) {
  config.path = GemmPath::kScalar;
  config.workgroup_size = caps.subgroup_size;
  config.tile_m = tile.tile_m, config.tile_n = tile.tile_n * caps.subgroup_size;
  config.step_k = tile.step_k, config.row_group = tile.row_group;
}

}  // namespace hadal
