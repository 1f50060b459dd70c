#version 460
#extension GL_GOOGLE_include_directive : require
// bf16_grouped_gemm, portable path: bf16_gemm (a float) for rows sorted by expert, each expert with its
// own weight. One workgroup = one tile of the device-made list (at most TILE_M rows of one expert) x
// (workgroup size * TILE_N) columns; workgroups in y are the tiles, by indirect dispatch. Inside it is
// bf16_gemm.comp: the same tile function, hence the same bits. No shared memory, no barrier, no subgroup
// operation: right at any subgroup size.
#include "lib/prelude.glsl"
#include "layout/bf16_grouped_gemm.h"
#include "lib/moe_tiles.glsl"

layout(constant_id = kBf16GroupedGemmSpecTileM) const uint TILE_M = 8;
layout(constant_id = kBf16GroupedGemmSpecTileN) const uint TILE_N = 4;
layout(constant_id = kBf16GroupedGemmSpecDBf16) const uint D_BF16 = 0;
const uint A_BF16 = 0;

layout(push_constant, scalar) uniform Push { Bf16GroupedGemmPush pc; };

#ifdef HADAL_SCALAR
layout(constant_id = kBf16GroupedGemmSpecStepK) const uint STEP_K = 16;
layout(constant_id = kBf16GroupedGemmSpecRowGroup) const uint ROW_GROUP = 8;
#include "lib/bf16_gemm_scalar_tile.glsl"
#else
#include "lib/bf16_gemm_tile.glsl"
#endif

void store(uint row, uint col, float value) {
  uint64_t index = uint64_t(row) * pc.d_stride + col;
  if (D_BF16 != 0) {
    U16Out(pc.d + index * 2).v = uint16_t(bf16_encode(value));
  } else {
    FloatOut(pc.d + index * 4).v = value;
  }
}

void main() {
  MoeTile tile = moe_tile(pc.tiles, gl_WorkGroupID.y);
  if (tile.row_begin >= tile.row_end) return;
  ExpertWeight weight = expert_weight(pc.experts, tile.expert);
  uint wanted = gl_WorkGroupID.x * (gl_WorkGroupSize.x * TILE_N);
  uint n0 = tile_first_column(wanted, pc.n);
  uint64_t a_row[TILE_M];
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    a_row[i] = pc.a + uint64_t(moe_a_row(tile, i, pc.a_rows)) * pc.a_stride * 4;
  }
  float acc[TILE_M][TILE_N];
  bf16_gemm_tile(a_row, weight.b, n0, pc.n, pc.k, pc.b_stride, acc);
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint col = n0 + j * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (col >= wanted && col < pc.n) {
      [[unroll]] for (uint i = 0; i < TILE_M; i++) {
        if (tile.row_begin + i < tile.row_end) store(tile.row_begin + i, col, acc[i][j]);
      }
    }
  }
}
