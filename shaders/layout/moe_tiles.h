// The tile list between moe_permute or moe_tiles, which write it on the device, and the grouped GEMMs,
// which are dispatched over it (kernels/include/hadal/grouped_gemm.h is the same for the host); the table
// that finds an expert's weights; and everything that kernels/moe_tiles.cpp and shaders/moe_tiles.comp both
// know.
#ifndef HADAL_LAYOUT_MOE_TILES_H_
#define HADAL_LAYOUT_MOE_TILES_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

// One row of workgroups: at most tile_m rows of d, from row_begin on, of one expert.
struct MoeTile {
  uint expert;
  uint row_begin;
  uint row_end;
  uint reserved;
};
HADAL_CHECK_SIZE(MoeTile, 16);

// Addresses of one expert's weight (and of its scales, where the format has them).
struct ExpertWeight {
  uint64_t b;
  uint64_t b_scale;
};
HADAL_CHECK_SIZE(ExpertWeight, 16);

// Shared memory of a workgroup: 4 bytes per expert and the reductions'.
HADAL_CONST(kMoeTilesMaxExperts, 1024);
// Tiles that one workgroup writes; each scans all experts first.
HADAL_CONST(kMoeTilesPerWorkgroup, 1024);
HADAL_CONST(kMoeTilesMaxCommands, 4);

struct MoeTilesPush {
  uint64_t segments;  // [experts] uint: ends (m_max = 0) or counts
  uint64_t tiles;     // MoeTile [max_tiles]
  uint64_t commands;  // [command_count] VkDispatchIndirectCommand
  uint experts;
  uint rows;   // of all experts
  uint m_max;  // 0: segments are ends; else group e has the rows from e * m_max on
  uint tile_m;
  uint max_tiles;
  uint command_count;
  uint groups_x0;
  uint groups_x1;
  uint groups_x2;
  uint groups_x3;
};
HADAL_CHECK_SIZE(MoeTilesPush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MOE_TILES_H_
