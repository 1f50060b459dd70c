// The inner product of fp8_gemm and fp8_grouped_gemm: one TILE_M x TILE_N tile per invocation.
// Needs TILE_M and TILE_N, and lib/fp8_scale.glsl, before the include. lib/fp8_gemm_scalar_tile.glsl has the
// same interface; `table` and `rows` are that one's.

#include "fp8_gemm_block.glsl"

// The tile's first column: as wanted (lib/fp8_gemm_scalar_tile.glsl moves the last tile back).
uint tile_first_column(uint wanted, uint n) { return wanted; }

// Eight packed values of a row at k, times 2^-8; `valid` < 8 zeroes the rest (padding may hold NaN).
// a is uniform and b differs per invocation, hence two forms: 64-bit loads halve a CPU driver's
// gathers, and two 32-bit ones keep its scalar path.
void load_a(uint64_t row, uint k, uint valid, out vec4 lo, out vec4 hi) {
  uvec2 w = Uvec2In(row + k).v;
  if (valid < 8) {
    w.x &= valid >= 4 ? 0xffffffffu : (1u << (8 * valid)) - 1u;
    w.y &= valid <= 4 ? 0u : (1u << (8 * (valid - 4))) - 1u;
  }
  lo = e4m3x4_times_2_m8(w.x);
  hi = e4m3x4_times_2_m8(w.y);
}

void load_b(uint64_t row, uint k, uint valid, out vec4 lo, out vec4 hi) {
  uint64_t w = U64In(row + k).v;
  if (valid < 8) w &= (uint64_t(1) << (8 * valid)) - uint64_t(1);
  lo = e4m3x4_times_2_m8(uint(w));
  hi = e4m3x4_times_2_m8(uint(w >> 32));
}

// `always` is not 0: its branch ends the basic block that decodes b, and keeps LLVM from mixing the
// products into it, which spills (fp8_gemm.md).
void fp8_gemm_step(uint64_t a_row[TILE_M], uint64_t b_row[TILE_N], uint k, uint valid, uint always,
                   inout float t[TILE_M][TILE_N]) {
  vec4 b_lo[TILE_N], b_hi[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) load_b(b_row[j], k, valid, b_lo[j], b_hi[j]);
  if (always == 0) return;
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    vec4 a_lo, a_hi;
    load_a(a_row[i], k, valid, a_lo, a_hi);
    [[unroll]] for (uint q = 0; q < 4; q++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = mac(a_lo[q], b_lo[j][q], t[i][j]);
    }
    [[unroll]] for (uint q = 0; q < 4; q++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = mac(a_hi[q], b_hi[j][q], t[i][j]);
    }
  }
}

void fp8_gemm_tile(uint64_t a_row[TILE_M], uint64_t a_scale_row[TILE_M], uint64_t b,
                   uint64_t b_scale, uint first_column, uint n, uint k, uint b_stride,
                   uint b_scale_stride, uint64_t table, uint rows,
                   out float acc[TILE_M][TILE_N]) {
  uint n0 = first_column + gl_LocalInvocationID.x;
  uint64_t b_row[TILE_N], b_scale_row[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint col = min(n0 + j * gl_WorkGroupSize.x, n - 1);
    b_row[j] = b + uint64_t(col) * b_stride;
    b_scale_row[j] = b_scale_row_of(b_scale, col, b_scale_stride);
  }
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) acc[i][j] = 0.0;
  }
  if (k == 0) return;
  uint kb = 0;
  do {  // tested at its end, as its inner one: lib/row_vectors.glsl
    float t[TILE_M][TILE_N];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = 0.0;
    }
    uint begin = kb * kFp8Block, end = min(begin + kFp8Block, k);
    uint full = begin + ((end - begin) & ~7u);
    if (begin < full) {
      uint kk = begin;
      [[dont_unroll]] do {
        fp8_gemm_step(a_row, b_row, kk, 8, b_stride, t);
        kk += 8;
      } while (kk < full);
    }
    if (full < end) fp8_gemm_step(a_row, b_row, full, end - full, b_stride, t);
    add_scaled_block(t, a_scale_row, b_scale_row, kb, acc);
    kb++;
  } while (kb * kFp8Block < k);
}
