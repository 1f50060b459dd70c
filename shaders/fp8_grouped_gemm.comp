#version 460
#extension GL_GOOGLE_include_directive : require
// fp8_grouped_gemm, portable path: fp8_gemm for rows sorted by expert, each expert with its own weight.
// One workgroup = one tile of the device-made list (at most TILE_M rows of one expert) x
// (workgroup size * TILE_N) columns; workgroups in y are the tiles, by indirect dispatch. Inside it is
// fp8_gemm.comp: the same tile function, hence the same bits. No shared memory, no barrier, no subgroup
// operation: right at any subgroup size.
#include "lib/prelude.glsl"
#include "layout/fp8_grouped_gemm.h"
#include "lib/fp8.glsl"
#include "lib/moe_tiles.glsl"

layout(constant_id = kFp8GroupedGemmSpecTileM) const uint TILE_M = 8;
layout(constant_id = kFp8GroupedGemmSpecTileN) const uint TILE_N = 4;
layout(constant_id = kFp8GroupedGemmSpecDBf16) const uint D_BF16 = 0;
layout(constant_id = kFp8GroupedGemmSpecAScaleE8m0) const uint A_SCALE_E8M0 = 0;
layout(constant_id = kFp8GroupedGemmSpecBScaleE8m0) const uint B_SCALE_E8M0 = 0;
layout(constant_id = kFp8GroupedGemmSpecBScaleShift) const uint B_SCALE_SHIFT = 7;

layout(push_constant, scalar) uniform Push { Fp8GroupedGemmPush pc; };

#include "lib/fp8_scale.glsl"
#ifdef HADAL_SCALAR
layout(constant_id = kFp8GroupedGemmSpecStepK) const uint STEP_K = 8;
layout(constant_id = kFp8GroupedGemmSpecRowGroup) const uint ROW_GROUP = 4;
#include "lib/fp8_gemm_scalar_tile.glsl"
#else
#include "lib/fp8_gemm_tile.glsl"
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
  uint rows = tile.row_begin < tile.row_end ? tile.row_end - tile.row_begin : 0;
#ifdef HADAL_SCALAR
  // No return: behind one the driver masks b's loads (fp8_grouped_gemm.md). Nothing of an empty tile is stored.
  if (rows == 0) tile.expert = 0;
  // Uniform loads run in branches that are not taken, too: without a_rows they read the list.
  uint64_t row_list = pc.a_rows != 0 ? pc.a_rows : pc.tiles;
#else
  if (rows == 0) return;
#endif
  ExpertWeight weight = expert_weight(pc.experts, tile.expert);
  uint wanted = gl_WorkGroupID.x * (gl_WorkGroupSize.x * TILE_N);
  uint n0 = tile_first_column(wanted, pc.n);
  uint64_t a_row[TILE_M], a_scale_row[TILE_M];
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
#ifdef HADAL_SCALAR
    uint row = moe_a_row(tile, i, 0);
    uint listed = UintIn(row_list + (pc.a_rows != 0 ? uint64_t(row) * 4 : uint64_t(0))).v;
    if (pc.a_rows != 0) row = listed;
#else
    uint row = moe_a_row(tile, i, pc.a_rows);
#endif
    a_row[i] = pc.a + uint64_t(row) * pc.a_stride;
    a_scale_row[i] = pc.a_scale + uint64_t(row) * pc.a_scale_stride * kAScaleBytes;
  }
  float acc[TILE_M][TILE_N];
  fp8_gemm_tile(a_row, a_scale_row, weight.b, weight.b_scale, n0, pc.n, pc.k, pc.b_stride,
                pc.b_scale_stride, pc.e4m3_table, rows, acc);
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint col = n0 + j * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (col >= wanted && col < pc.n) {
      [[unroll]] for (uint i = 0; i < TILE_M; i++) {
        if (i < rows) store(tile.row_begin + i, col, acc[i][j]);
      }
    }
  }
}
