#version 460
#extension GL_GOOGLE_include_directive : require
// bf16_gemm, portable path: D[m,n] = sum over k of A[m,k] * B[n,k], B bfloat16.
// Workgroups in z are the batches. One workgroup = TILE_M rows of d x (workgroup size * TILE_N) columns, as fp8_gemm.comp: invocations
// lie along n, each owning TILE_N columns a workgroup apart; the rows are uniform. No shared memory, no
// barrier, no subgroup operation: right at any subgroup size. Sum order: k ascending inside a segment of
// 128, segments folded left to right; the tile sizes never change it.
#include "lib/prelude.glsl"
#include "layout/bf16_gemm.h"

layout(constant_id = kBf16GemmSpecTileM) const uint TILE_M = 8;
layout(constant_id = kBf16GemmSpecTileN) const uint TILE_N = 4;
layout(constant_id = kBf16GemmSpecABf16) const uint A_BF16 = 0;
layout(constant_id = kBf16GemmSpecDBf16) const uint D_BF16 = 0;

layout(push_constant, scalar) uniform Push { Bf16GemmPush pc; };

#ifdef HADAL_SCALAR
layout(constant_id = kBf16GemmSpecStepK) const uint STEP_K = 16;
layout(constant_id = kBf16GemmSpecRowGroup) const uint ROW_GROUP = 8;
#include "lib/bf16_gemm_scalar_tile.glsl"
#else
#include "lib/bf16_gemm_tile.glsl"
#endif

void store(uint row, uint col, float value) {
  uint64_t index =
      uint64_t(gl_WorkGroupID.z) * pc.d_batch_stride + uint64_t(row) * pc.d_stride + col;
  if (D_BF16 != 0) {
    U16Out d = U16Out(pc.d + index * 2);
    if ((pc.flags & kBf16GemmFlagAccumulate) != 0) value += bf16_decode(uint(d.v));
    d.v = uint16_t(bf16_encode(value));
  } else {
    FloatOut d = FloatOut(pc.d + index * 4);
    if ((pc.flags & kBf16GemmFlagAccumulate) != 0) value += d.v;
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
  uint64_t a = pc.a + uint64_t(gl_WorkGroupID.z) * pc.a_batch_stride * (A_BF16 != 0 ? 2 : 4);
  uint64_t b = pc.b + uint64_t(gl_WorkGroupID.z) * pc.b_batch_stride * 2;
  uint64_t a_row[TILE_M];
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    uint row = min(m0 + i, pc.m - 1);
    a_row[i] = a + uint64_t(row) * pc.a_stride * (A_BF16 != 0 ? 2 : 4);
  }
  float acc[TILE_M][TILE_N];
  bf16_gemm_tile(a_row, b, n0, pc.n, pc.k, pc.b_stride, acc);
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint col = n0 + j * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (col >= wanted && col < pc.n) {
      [[unroll]] for (uint i = 0; i < TILE_M; i++) {
        if (m0 + i < pc.m) store(m0 + i, col, acc[i][j]);
      }
    }
  }
}
