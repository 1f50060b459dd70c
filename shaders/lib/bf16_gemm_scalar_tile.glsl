// The inner product of bf16_gemm and bf16_grouped_gemm for CPU drivers that keep uniform values in scalar
// registers: the same sums in the same order as lib/bf16_gemm_tile.glsl, hence the same bits, but every
// load is a uniform one (scalar_loads.glsl).
// Needs TILE_M, TILE_N, A_BF16, STEP_K and ROW_GROUP before the include.

#include "bf16.glsl"
#include "scalar_loads.glsl"

const uint kGemmSegment = 128;
const uint kABytes = A_BF16 != 0 ? 2 : 4;

float load_a(uint64_t address) {
  if (A_BF16 != 0) return bf16_decode(uint(U16In(address).v));
  return FloatIn(address).v;
}

// Four channels of b, and which of them count.
void decode_b(uint64_t word, uint valid, out float v[4]) {
  vec4 x = bf16x4(uint(word), uint(word >> 32));
  if (valid < 4) x = keep(x, valid);
  [[unroll]] for (uint q = 0; q < 4; q++) v[q] = x[q];
}

// t += the products of `count` channels at k (4 times the words of STEP), of which `valid` count: the
// others are zero in both operands, because padding may hold NaN.
#define HADAL_BF16_STEP(STEP, valid)                                                            \
  {                                                                                             \
    float bv[STEP][TILE_N];                                                                     \
    [[unroll]] for (uint w = 0; w < STEP; w += 4) {                                             \
      [[unroll]] for (uint j = 0; j < TILE_N; j++) {                                            \
        float four[4];                                                                          \
        decode_b(load_b_words(b_first[j] + at * uint64_t(2) + uint64_t(w * 2), stride), valid, four); \
        [[unroll]] for (uint q = 0; q < 4; q++) bv[w + q][j] = four[q];                         \
      }                                                                                         \
    }                                                                                           \
    [[unroll]] for (uint g = 0; g < TILE_M / ROW_GROUP; g++) {                                  \
      [[unroll]] for (uint q = 0; q < STEP; q++) {                                              \
        [[unroll]] for (uint r = 0; r < ROW_GROUP; r++) {                                       \
          float av = load_a(a_row[g * ROW_GROUP + r] + at * uint64_t(kABytes) +                 \
                            uint64_t(q * kABytes));                                             \
          if (valid < STEP) av = q < valid ? av : 0.0;                                          \
          [[unroll]] for (uint j = 0; j < TILE_N; j++) {                                        \
            t[g * ROW_GROUP + r][j] = mac(av, bv[q][j], t[g * ROW_GROUP + r][j]);               \
          }                                                                                     \
        }                                                                                       \
      }                                                                                         \
    }                                                                                           \
  }

// b_stride in elements; first_column: of the tile, as tile_first_column gave it.
void bf16_gemm_tile(uint64_t a_row[TILE_M], uint64_t b, uint first_column, uint n, uint k,
                    uint b_stride, out float acc[TILE_M][TILE_N]) {
  uint64_t stride = uint64_t(b_stride) * 2;
  uint64_t b_first[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    b_first[j] = b + uint64_t(first_column + j * gl_WorkGroupSize.x) * stride;
  }
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) acc[i][j] = 0.0;
  }
  uint last = (k - 1) & ~3u;
  for (uint begin = 0; begin < k; begin += kGemmSegment) {
    float t[TILE_M][TILE_N];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = 0.0;
    }
    uint end = min(begin + kGemmSegment, k);
    uint full = begin + (end - begin) / STEP_K * STEP_K;
    // Counters that differ between invocations on purpose: see lib/fp8_gemm_scalar_tile.glsl. The
    // minima keep the addresses inside the row where a driver runs a branch with no invocation in it;
    // k is at least STEP_K.
    uint counter = begin + gl_SubgroupInvocationID;
    uint step;
    if (full > begin) {
      [[dont_unroll]] do {
        step = min(subgroupBroadcast(counter, 0), full - STEP_K);
        uint64_t at = uint64_t(step);
        counter += STEP_K;
        HADAL_BF16_STEP(STEP_K, STEP_K)
      } while (step + STEP_K < full);
    }
    if (full < end) {
      counter = full + gl_SubgroupInvocationID;
      [[dont_unroll]] do {
        step = min(subgroupBroadcast(counter, 0), last);
        uint64_t at = uint64_t(step);
        uint valid = min(k - step, 4);
        counter += 4;
        HADAL_BF16_STEP(4, valid)
      } while (step + 4 < end);
    }
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) {
        precise float sum = acc[i][j] + t[i][j];
        acc[i][j] = sum;
      }
    }
  }
}
