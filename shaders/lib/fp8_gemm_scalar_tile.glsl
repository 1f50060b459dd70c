// The inner product of fp8_gemm and fp8_grouped_gemm for CPU drivers that keep uniform values in scalar
// registers (caps.scalar_uniforms): the same sums in the same order as lib/fp8_gemm_tile.glsl, hence the
// same bits, but every load is a uniform one (scalar_loads.glsl).
// Needs TILE_M, TILE_N, STEP_K, ROW_GROUP and lib/fp8_scale.glsl before the include.

#include "fp8_gemm_block.glsl"
#include "scalar_loads.glsl"

const uint STEP_WORDS = STEP_K / 8;

// t += a * bv of a step's channels. A group without rows is skipped: one branch and the moves where the
// paths meet again. The branches also keep LLVM from mixing the groups' broadcasts, which spills; a
// tile of one group is faster without.
void fp8_gemm_products(uint64_t a_row[TILE_M], uint rows, uint64_t at[STEP_WORDS], uint64_t table,
                       float bv[STEP_K][TILE_N], inout float t[TILE_M][TILE_N]) {
  [[unroll]] for (uint g = 0; g < TILE_M / ROW_GROUP; g++) {
    if (TILE_M == ROW_GROUP || g * ROW_GROUP < rows) {
      [[unroll]] for (uint q = 0; q < STEP_K; q++) {
        [[unroll]] for (uint r = 0; r < ROW_GROUP; r++) {
          // 64-bit offsets, so that constants become displacements.
          uint64_t code = uint64_t(U8In(a_row[g * ROW_GROUP + r] + at[q / 8] + uint64_t(q % 8)).v);
          float av = FloatIn(table + code * uint64_t(4)).v;
          [[unroll]] for (uint j = 0; j < TILE_N; j++) {
            t[g * ROW_GROUP + r][j] = mac(av, bv[q][j], t[g * ROW_GROUP + r][j]);
          }
        }
      }
    }
  }
}

// first_column: of the tile, as tile_first_column gave it. table: e4m3 code -> float of its value times
// 2^-8 (0 for NaN codes, which only padding holds). rows: that there are; the sums of others are undefined.
void fp8_gemm_tile(uint64_t a_row[TILE_M], uint64_t a_scale_row[TILE_M], uint64_t b,
                   uint64_t b_scale, uint first_column, uint n, uint k, uint b_stride,
                   uint b_scale_stride, uint64_t table, uint rows,
                   out float acc[TILE_M][TILE_N]) {
  uint64_t stride = b_stride;
  uint64_t b_first[TILE_N], b_scale_row[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint column = first_column + j * gl_WorkGroupSize.x;
    b_first[j] = b + uint64_t(column) * stride;
    b_scale_row[j] =
        b_scale_row_of(b_scale, column + gl_SubgroupInvocationID, b_scale_stride);
  }
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) acc[i][j] = 0.0;
  }
  if (k == 0) return;
  // The counter differs between invocations on purpose, by their number: what is uniform in a loop is
  // kept as a vector and taken out of it through memory, while invocation 0's part of a vector is a
  // register move.
  uint counter = gl_SubgroupInvocationID;
  uint last = (k - 1) & ~7u, kb = 0;
  do {  // tested at its end: the driver would run one turn more, without an invocation, and load its scales
    float t[TILE_M][TILE_N];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = 0.0;
    }
    uint end = min(kb * kFp8Block + kFp8Block, k);
    uint step;
    [[dont_unroll]] do {
      step = subgroupBroadcast(counter, 0);
      uint64_t at[STEP_WORDS];
      float bv[STEP_K][TILE_N];
      [[unroll]] for (uint w = 0; w < STEP_WORDS; w++) {
        // Behind k the last word is read again, and its products are zero.
        uint begin = step + w * 8;
        uint valid = begin < k ? min(k - begin, 8) : 0;
        uint64_t keep = valid == 8 ? ~uint64_t(0) : (uint64_t(1) << (8 * valid)) - uint64_t(1);
        at[w] = uint64_t(min(begin, last));
        [[unroll]] for (uint j = 0; j < TILE_N; j++) {
          uint64_t word = load_b_words(b_first[j] + at[w], stride) & keep;
          vec4 lo = e4m3x4_times_2_m8(uint(word));
          vec4 hi = e4m3x4_times_2_m8(uint(word >> 32));
          [[unroll]] for (uint q = 0; q < 4; q++) {
            bv[w * 8 + q][j] = lo[q];
            bv[w * 8 + 4 + q][j] = hi[q];
          }
        }
      }
      counter += STEP_K;
      fp8_gemm_products(a_row, rows, at, table, bv, t);
    } while (step + STEP_K < end);
    add_scaled_block(t, a_scale_row, b_scale_row, kb, acc);
    kb++;
  } while (kb * kFp8Block < k);
}
