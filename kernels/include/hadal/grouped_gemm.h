// What the grouped GEMMs (fp8_grouped_gemm, bf16_grouped_gemm) share with whoever makes their tile
// list (moe_permute, moe_tiles, or a host with a router of its own) and their weight table.
//
// Rows of all experts lie in one tensor, sorted by expert. The list cuts every expert's segment
// into tiles of at most tile_m rows; tiles never cross a segment's end, an empty segment has none.
// The kernel is dispatched indirectly: VkDispatchIndirectCommand {x = the configuration's column
// groups, y = number of tiles, z = 1}.
#pragma once

#include <algorithm>
#include <cstdint>

#include "hadal/buffer.h"

namespace hadal {

// One tile of the list in device memory. A tile with row_begin >= row_end does nothing.
struct MoeTile {
  uint32_t expert = 0;
  uint32_t row_begin = 0;
  uint32_t row_end = 0;  // at most row_begin + tile_m
  uint32_t reserved = 0;
};

// One entry of the weight table in device memory, [experts]. Experts may lie in several buffers.
struct ExpertWeight {
  DeviceAddress b = 0;        // multiple of 16
  DeviceAddress b_scale = 0;  // ignored by bf16_grouped_gemm
};

// Most tiles that `rows` sorted rows can make, however they are spread: the capacity of the list.
[[nodiscard]] constexpr uint32_t grouped_gemm_max_tiles(uint32_t rows, uint32_t experts,
                                                        uint32_t tile_m) {
  // Each non-empty expert wastes at most tile_m - 1 rows of its last tile.
  const uint64_t segments = std::min(rows, experts);
  return uint32_t((rows + segments * (tile_m - 1)) / tile_m);
}

}  // namespace hadal
