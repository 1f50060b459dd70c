// Tile lists of the grouped GEMMs, made on the host: what moe_permute makes on the device.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "hadal/grouped_gemm.h"

namespace hadal::test {

struct MoeTileList {
  std::vector<MoeTile> tiles;          // [grouped_gemm_max_tiles], the unused ones all ones
  std::array<uint32_t, 3> indirect{};  // VkDispatchIndirectCommand
};

// Ends of the segments whose lengths are given.
[[nodiscard]] inline std::vector<uint32_t> segment_ends(const std::vector<uint32_t>& lengths) {
  std::vector<uint32_t> ends;
  for (uint32_t length : lengths) ends.push_back((ends.empty() ? 0 : ends.back()) + length);
  return ends;
}

[[nodiscard]] inline MoeTileList make_moe_tiles(const std::vector<uint32_t>& ends, uint32_t tile_m,
                                                uint32_t column_groups) {
  MoeTileList list;
  for (uint32_t expert = 0, row = 0; expert < ends.size(); ++expert) {
    for (; row < ends[expert]; row = list.tiles.back().row_end) {
      list.tiles.push_back({expert, row, std::min(row + tile_m, ends[expert]), 0});
    }
  }
  list.indirect = {column_groups, uint32_t(list.tiles.size()), 1};
  const uint32_t rows = ends.empty() ? 0 : ends.back();
  list.tiles.resize(grouped_gemm_max_tiles(rows, uint32_t(ends.size()), tile_m),
                    {~0u, ~0u, ~0u, ~0u});
  return list;
}

}  // namespace hadal::test
