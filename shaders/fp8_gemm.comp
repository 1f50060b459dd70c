#version 460
#extension GL_GOOGLE_include_directive : require
// fp8_gemm, portable path: D[m,n] = sum over 128-blocks kb of
//   (sum over k in kb of A8[m,k] * B8[n,k]) * (a_scale[m,kb] * b_scale[n/128,kb]).
// One workgroup = TILE_M rows of d x (workgroup size * TILE_N) columns. Invocations lie along n, each
// owning TILE_N columns a workgroup apart; the rows are uniform, so that a CPU driver keeps a's values in
// scalar registers and a GPU broadcasts them. No shared memory, no barrier, no subgroup operation:
// right at any subgroup size. Sum order: k ascending inside a block, blocks ascending; the tile sizes
// never change it, so a row's bits do not depend on m.
#include "lib/prelude.glsl"
#include "layout/fp8_gemm.h"
#include "lib/fp8.glsl"

layout(constant_id = kFp8GemmSpecTileM) const uint TILE_M = 8;
layout(constant_id = kFp8GemmSpecTileN) const uint TILE_N = 4;
layout(constant_id = kFp8GemmSpecDBf16) const uint D_BF16 = 0;
layout(constant_id = kFp8GemmSpecAScaleE8m0) const uint A_SCALE_E8M0 = 0;
layout(constant_id = kFp8GemmSpecBScaleE8m0) const uint B_SCALE_E8M0 = 0;
layout(constant_id = kFp8GemmSpecBScaleShift) const uint B_SCALE_SHIFT = 7;

layout(push_constant, scalar) uniform Push { Fp8GemmPush pc; };

#include "lib/fp8_scale.glsl"
#ifdef HADAL_SCALAR
layout(constant_id = kFp8GemmSpecStepK) const uint STEP_K = 8;
layout(constant_id = kFp8GemmSpecRowGroup) const uint ROW_GROUP = 4;
#include "lib/fp8_gemm_scalar_tile.glsl"
#else
#include "lib/fp8_gemm_tile.glsl"
#endif

void store(uint row, uint col, float value) {
  uint64_t index = uint64_t(row) * pc.d_stride + col;
  if (D_BF16 != 0) {
    U16Out d = U16Out(pc.d + index * 2);
    if ((pc.flags & kFp8GemmFlagAccumulate) != 0) value += bf16_decode(uint(d.v));
    d.v = uint16_t(bf16_encode(value));
  } else {
    FloatOut d = FloatOut(pc.d + index * 4);
    if ((pc.flags & kFp8GemmFlagAccumulate) != 0) value += d.v;
    d.v = value;
  }
}

void main() {
#ifdef HADAL_SCALAR
  // Tiles of the same columns follow each other: their rows of b stay in the core's cache.
  uvec2 group = gl_WorkGroupID.yx;
#else
  uvec2 group = gl_WorkGroupID.xy;
#endif
  uint m0 = group.y * TILE_M;
  uint wanted = group.x * (gl_WorkGroupSize.x * TILE_N);
  uint n0 = tile_first_column(wanted, pc.n);
  // Rows and columns past the edge repeat the last one and are not stored.
  uint64_t a_row[TILE_M], a_scale_row[TILE_M];
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    uint row = min(m0 + i, pc.m - 1);
    a_row[i] = pc.a + uint64_t(row) * pc.a_stride;
    a_scale_row[i] = pc.a_scale + uint64_t(row) * pc.a_scale_stride * kAScaleBytes;
  }
  float acc[TILE_M][TILE_N];
  fp8_gemm_tile(a_row, a_scale_row, pc.b, pc.b_scale, n0, pc.n, pc.k, pc.b_stride,
                pc.b_scale_stride, pc.e4m3_table, pc.m - m0, acc);
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint col = n0 + j * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (col >= wanted && col < pc.n) {
      [[unroll]] for (uint i = 0; i < TILE_M; i++) {
        if (m0 + i < pc.m) store(m0 + i, col, acc[i][j]);
      }
    }
  }
}
