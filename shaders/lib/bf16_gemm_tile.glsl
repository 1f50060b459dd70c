// The inner product of bf16_gemm and bf16_grouped_gemm: one TILE_M x TILE_N tile per invocation, sums
// in segments of 128 channels. Needs TILE_M, TILE_N and A_BF16 before the include.

#include "bf16.glsl"

const uint kGemmSegment = 128;

// As lib/fp8_gemm_tile.glsl; lib/bf16_gemm_scalar_tile.glsl has the same interface.
uint tile_first_column(uint wanted, uint n) { return wanted; }

// Eight values of a row at k; `valid` < 8 zeroes the rest, and four floats wholly behind `valid` are
// not read, because a row of a may end there.
void load_a8(uint64_t row, uint k, uint valid, out vec4 lo, out vec4 hi) {
  if (A_BF16 != 0) {
    uvec4 w = Uvec4In(row + k * 2).v;
    lo = bf16x4(w.x, w.y);
    hi = bf16x4(w.z, w.w);
  } else {
    lo = Vec4In(row + k * 4).v;
    hi = vec4(0.0);
    if (valid > 4) hi = Vec4In(row + k * 4 + 16).v;
  }
  if (valid < 8) keep8(valid, lo, hi);
}

void load_b8(uint64_t row, uint k, uint valid, out vec4 lo, out vec4 hi) {
  load_bf16x8(row + k * 2, lo, hi);
  if (valid < 8) keep8(valid, lo, hi);
}

void bf16_gemm_step(uint64_t a_row[TILE_M], uint64_t b_row[TILE_N], uint k, uint valid,
                    inout float t[TILE_M][TILE_N]) {
  vec4 b_lo[TILE_N], b_hi[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) load_b8(b_row[j], k, valid, b_lo[j], b_hi[j]);
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    vec4 a_lo, a_hi;
    load_a8(a_row[i], k, valid, a_lo, a_hi);
    [[unroll]] for (uint q = 0; q < 4; q++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = mac(a_lo[q], b_lo[j][q], t[i][j]);
    }
    [[unroll]] for (uint q = 0; q < 4; q++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = mac(a_hi[q], b_hi[j][q], t[i][j]);
    }
  }
}

// b_stride in elements.
void bf16_gemm_tile(uint64_t a_row[TILE_M], uint64_t b, uint first_column, uint n, uint k,
                    uint b_stride, out float acc[TILE_M][TILE_N]) {
  uint n0 = first_column + gl_LocalInvocationID.x;
  uint64_t b_row[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint col = min(n0 + j * gl_WorkGroupSize.x, n - 1);
    b_row[j] = b + uint64_t(col) * b_stride * 2;
  }
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) acc[i][j] = 0.0;
  }
  if (k == 0) return;
  uint begin = 0;
  do {  // tested at its end, as its inner one: lib/row_vectors.glsl
    float t[TILE_M][TILE_N];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = 0.0;
    }
    uint end = min(begin + kGemmSegment, k);
    uint full = begin + ((end - begin) & ~7u);
    if (begin < full) {
      uint kk = begin;
      [[dont_unroll]] do {
        bf16_gemm_step(a_row, b_row, kk, 8, t);
        kk += 8;
      } while (kk < full);
    }
    if (full < end) bf16_gemm_step(a_row, b_row, full, end - full, t);
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) {
        precise float sum = acc[i][j] + t[i][j];
        acc[i][j] = sum;
      }
    }
    begin += kGemmSegment;
  } while (begin < k);
}
