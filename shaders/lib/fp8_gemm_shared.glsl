// The product of fp8_gemm_shared and fp8_grouped_gemm_shared: one TILE_M x TILE_N tile per workgroup,
// PART_M x PART_N elements of it per invocation, rows and columns a stride apart so that neighbours
// read and write neighbouring words. The including shader defines path_a_row(i) and
// path_store(i, col, value). BLOCK_K channels of a and b are decoded into shared memory at a time,
// channel by channel, the next ones being fetched meanwhile. The sum is the portable path's, operation
// by operation (fp8_gemm_tile.glsl), hence its bits.
#include "fp8.glsl"
#include "fp8_gemm_fetch.glsl"

const uint PIECES_A = HADAL_FP8_PIECES(TILE_M, BLOCK_K, INVOCATIONS);
const uint PIECES_B = HADAL_FP8_PIECES(TILE_N, BLOCK_K, INVOCATIONS);
const uint ROW_PIECES = BLOCK_K / 16;
const uint STEP_M = TILE_M / PART_M;  // between an invocation's rows
const uint STEP_N = TILE_N / PART_N;

shared float a_sh[HADAL_FP8_SHARED_FLOATS(TILE_M, BLOCK_K)];
shared float b_sh[HADAL_FP8_SHARED_FLOATS(TILE_N, BLOCK_K)];

// Piece p, 16 codes of one row, to 16 channels.
#define STORE_PIECE(floats, tile, p, codes)                             \
  [[unroll]] for (uint q = 0; q < 4; q++) {                             \
    vec4 v = e4m3x4_times_2_m8(codes[q]);                               \
    uint at = (((p) % ROW_PIECES) * 16 + q * 4) * ((tile) + 4) + (p) / ROW_PIECES; \
    [[unroll]] for (uint c = 0; c < 4; c++) floats[at + c * ((tile) + 4)] = v[c]; \
  }

void fp8_gemm_shared(uint64_t a, uint64_t a_scale, uint64_t b, uint64_t b_scale, uint n0, uint n, uint k,
                     uint a_stride, uint a_scale_stride, uint b_stride, uint b_scale_stride) {
  const uint id = gl_LocalInvocationIndex;
  const uint first_m = id / STEP_N, first_n = id % STEP_N;

  // Where this invocation's pieces and scales come from; columns past the edge repeat the last one.
  uint64_t a_row[PIECES_A], b_row[PIECES_B], sa_row[PART_M];
  [[unroll]] for (uint i = 0; i < PIECES_A; i++) {
    uint row = min((id + i * INVOCATIONS) / ROW_PIECES, TILE_M - 1);
    a_row[i] = a + uint64_t(path_a_row(row)) * a_stride;
  }
  [[unroll]] for (uint i = 0; i < PIECES_B; i++) {
    uint col = min(n0 + (id + i * INVOCATIONS) / ROW_PIECES, n - 1);
    b_row[i] = b + uint64_t(col) * b_stride;
  }
  [[unroll]] for (uint i = 0; i < PART_M; i++) {
    sa_row[i] = a_scale + uint64_t(path_a_row(first_m + i * STEP_M)) * a_scale_stride * 4;
  }

  float acc[PART_M][PART_N], t[PART_M][PART_N];
  [[unroll]] for (uint i = 0; i < PART_M; i++) {
    [[unroll]] for (uint j = 0; j < PART_N; j++) acc[i][j] = 0.0, t[i][j] = 0.0;
  }
  uvec4 a_next[PIECES_A], b_next[PIECES_B];
  const uint piece_k = (id % ROW_PIECES) * 16;  // INVOCATIONS is a multiple of ROW_PIECES
  [[unroll]] for (uint i = 0; i < PIECES_A; i++) a_next[i] = fetch_piece(a_row[i], piece_k, k);
  [[unroll]] for (uint i = 0; i < PIECES_B; i++) b_next[i] = fetch_piece(b_row[i], piece_k, k);

  [[dont_unroll]] for (uint k0 = 0; k0 < k; k0 += BLOCK_K) {
    barrier();
    [[unroll]] for (uint i = 0; i < PIECES_A; i++) {
      uint p = id + i * INVOCATIONS;
      if (p < TILE_M * ROW_PIECES) STORE_PIECE(a_sh, TILE_M, p, a_next[i])
    }
    [[unroll]] for (uint i = 0; i < PIECES_B; i++) {
      uint p = id + i * INVOCATIONS;
      if (p < TILE_N * ROW_PIECES) STORE_PIECE(b_sh, TILE_N, p, b_next[i])
    }
    barrier();
    const uint next = k0 + BLOCK_K + piece_k;
    [[unroll]] for (uint i = 0; i < PIECES_A; i++) a_next[i] = fetch_piece(a_row[i], next, k);
    [[unroll]] for (uint i = 0; i < PIECES_B; i++) b_next[i] = fetch_piece(b_row[i], next, k);

    // Channels past k are zero on both sides and change nothing.
    for (uint kk = 0; kk < BLOCK_K; kk++) {
      float av[PART_M], bv[PART_N];
      [[unroll]] for (uint i = 0; i < PART_M; i++) av[i] = a_sh[kk * (TILE_M + 4) + first_m + i * STEP_M];
      [[unroll]] for (uint j = 0; j < PART_N; j++) bv[j] = b_sh[kk * (TILE_N + 4) + first_n + j * STEP_N];
      [[unroll]] for (uint i = 0; i < PART_M; i++) {
        [[unroll]] for (uint j = 0; j < PART_N; j++) t[i][j] = mac(av[i], bv[j], t[i][j]);
      }
    }

    const uint end = k0 + BLOCK_K;
    if (end % kFp8Block == 0 || end >= k) {
      const uint kb = k0 / kFp8Block;
      const float rescale = 65536.0;  // the decoder leaves 2^-8 per operand
      // A tile's columns lie in one block of b, because TILE_N divides 128.
      float sb = FloatIn(b_scale + (uint64_t(n0 / kFp8Block) * b_scale_stride + kb) * 4).v;
      [[unroll]] for (uint i = 0; i < PART_M; i++) {
        precise float scale = FloatIn(sa_row[i] + kb * 4).v * sb;
        [[unroll]] for (uint j = 0; j < PART_N; j++) {
          acc[i][j] = mac(t[i][j], scale * rescale, acc[i][j]);
          t[i][j] = 0.0;
        }
      }
    }
  }

  [[unroll]] for (uint j = 0; j < PART_N; j++) {
    uint col = n0 + first_n + j * STEP_N;
    if (col < n) {
      [[unroll]] for (uint i = 0; i < PART_M; i++) path_store(first_m + i * STEP_M, col, acc[i][j]);
    }
  }
}
