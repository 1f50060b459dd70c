// What the GPU paths of fp8_gemm and fp8_grouped_gemm know on both sides beside the portable path's
// layout, whose push structs they take: specialisation constants and shared-memory sizes.
// kernels/fp8_gemm_paths.cpp chooses tiles by the same macros that size the shaders' arrays.
#ifndef HADAL_LAYOUT_FP8_GEMM_PATHS_H_
#define HADAL_LAYOUT_FP8_GEMM_PATHS_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kFp8PathSpecTileM, 10);       // rows of d per workgroup
HADAL_CONST(kFp8PathSpecTileN, 11);       // columns of d per workgroup; divides kFp8Block
HADAL_CONST(kFp8PathSpecDBf16, 12);       // 1: d is bfloat16
HADAL_CONST(kFp8PathSpecBlockK, 13);      // channels staged at a time; divides kFp8Block
HADAL_CONST(kFp8PathSpecPartM, 14);       // rows of a subgroup's part (coopmat), an invocation's (shared)
HADAL_CONST(kFp8PathSpecPartN, 15);       // columns of the same
HADAL_CONST(kFp8PathSpecInvocations, 16); // the workgroup's size, for array sizes
HADAL_CONST(kFp8PathSpecCoopM, 17);       // the cooperative matrix shape
HADAL_CONST(kFp8PathSpecCoopN, 18);
HADAL_CONST(kFp8PathSpecCoopK, 19);

// Macros, because GLSL sizes arrays by expressions of specialisation constants, not by functions.

// 16-byte words of one staged row of `element_bytes` a channel. One word of padding spreads the rows
// over the banks and keeps every matrix 16-byte aligned.
#define HADAL_FP8_COOPMAT_ROW_WORDS(block_k, element_bytes) ((block_k) * (element_bytes) / 16 + 1)
#define HADAL_FP8_COOPMAT_WORDS(rows, block_k, element_bytes) \
  ((rows) * HADAL_FP8_COOPMAT_ROW_WORDS(block_k, element_bytes))
// Floats: the scales of a block as a matrix of TILE_M x COOP_N; after the last block one matrix per
// subgroup on its way to d.
#define HADAL_FP8_COOPMAT_FLOATS(tile_m, coop_m, coop_n, subgroups) \
  (((tile_m) > (subgroups) * (coop_m) ? (tile_m) : (subgroups) * (coop_m)) * (coop_n))
#define HADAL_FP8_COOPMAT_SHARED_BYTES(tile_m, tile_n, block_k, element_bytes, coop_m, coop_n, subgroups) \
  (16 * HADAL_FP8_COOPMAT_WORDS((tile_m) + (tile_n), block_k, element_bytes) +                           \
   4 * HADAL_FP8_COOPMAT_FLOATS(tile_m, coop_m, coop_n, subgroups))

// Shared path: decoded floats, channel by channel, 4 floats of padding behind each.
#define HADAL_FP8_SHARED_FLOATS(tile, block_k) ((block_k) * ((tile) + 4))
#define HADAL_FP8_SHARED_BYTES(tile_m, tile_n, block_k) \
  (4 * (HADAL_FP8_SHARED_FLOATS(tile_m, block_k) + HADAL_FP8_SHARED_FLOATS(tile_n, block_k)))

// 16-byte pieces of codes that each invocation fetches for a staged tile.
#define HADAL_FP8_PIECES(tile, block_k, invocations) \
  (((tile) * (block_k) / 16 + (invocations) - 1) / (invocations))

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_FP8_GEMM_PATHS_H_
