#include "hadal/reference/moe_tiles.h"

#include <algorithm>

namespace hadal::reference {

std::vector<MoeTile> moe_tiles(const MoeTilesShape& s, const uint32_t* segments) {
  std::vector<MoeTile> tiles;
  for (uint32_t expert = 0; expert < s.experts; ++expert) {
    uint32_t row = 0, end = 0;
    if (s.masked) {
      row = expert * s.m_max, end = row + std::min(segments[expert], s.m_max);
    } else {
      row = expert ? std::min(segments[expert - 1], s.rows) : 0;
      end = std::min(segments[expert], s.rows);
    }
    for (; row < end; row = tiles.back().row_end) {
      tiles.push_back({expert, row, std::min(row + s.tile_m, end), 0});
    }
  }
  return tiles;
}

}  // namespace hadal::reference
