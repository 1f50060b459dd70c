// CPU reference of moe_tiles (hadal/moe_tiles.h): segment by segment, tile by tile.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/grouped_gemm.h"
#include "hadal/moe_tiles.h"

namespace hadal::reference {

// segments: [shape.experts], ends or counts.
[[nodiscard]] std::vector<MoeTile> moe_tiles(const MoeTilesShape& shape, const uint32_t* segments);

}  // namespace hadal::reference
