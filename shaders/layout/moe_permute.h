// Everything that kernels/moe_permute.cpp and shaders/moe_permute.comp, moe_combine.comp both know.
#ifndef HADAL_LAYOUT_MOE_PERMUTE_H_
#define HADAL_LAYOUT_MOE_PERMUTE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

// Shared memory of the one workgroup: 12 bytes per expert, one step of entries, and the reductions':
// 15 KiB, of the 16 that every device has.
HADAL_CONST(kMoePermuteMaxExperts, 1024);
HADAL_CONST(kMoePermuteMaxWorkgroup, 512);
HADAL_CONST(kMoePermuteUnroll, 4);
HADAL_CONST(kMoePermuteMaxCommands, 4);
HADAL_CONST(kMoePermuteNoRow, 0xffffffffu);  // row_of where the index names no expert

struct MoePermutePush {
  uint64_t indices;       // [tokens, top_k] uint
  uint64_t row_token;     // [tokens * top_k] uint
  uint64_t row_of;        // [tokens, top_k] uint
  uint64_t segment_ends;  // [experts] uint
  uint64_t tiles;         // MoeTile list
  uint64_t commands;      // [command_count] VkDispatchIndirectCommand
  uint entries;           // tokens * top_k
  uint experts;
  uint top_k;
  uint tile_m;
  uint command_count;
  uint groups_x0;
  uint groups_x1;
  uint groups_x2;
  uint groups_x3;
  uint reserved;
};
HADAL_CHECK_SIZE(MoePermutePush, 88);

HADAL_CONST(kMoeCombineColumns, 8);  // of x per invocation

HADAL_CONST(kMoeCombineFlagAccumulate, 1);
HADAL_CONST(kMoeCombineFlagShared, 2);

struct MoeCombinePush {
  uint64_t x;        // [tokens, hidden] float
  uint64_t shared_;  // [tokens, hidden] float
  uint64_t y;        // [rows, hidden] float
  uint64_t row_of;   // [tokens, top_k] uint
  uint64_t weights;  // [tokens, top_k] float
  uint hidden;
  uint top_k;
  uint x_stride;  // elements
  uint shared_stride;
  uint y_stride;
  uint flags;
};
HADAL_CHECK_SIZE(MoeCombinePush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MOE_PERMUTE_H_
