// The product of fp8_gemm_coopmat and fp8_grouped_gemm_coopmat: one TILE_M x TILE_N tile per workgroup.
// The including shader defines path_a_row(i), the row of a that row i of the tile multiplies, and
// path_store(i, col, value), which drops rows past the tile's end.
//
// Each subgroup owns PART_M x PART_N of the tile, as matrices of COOP_M x COOP_N. BLOCK_K channels of a
// and b are staged in shared memory at a time, as f16 decoded exactly (or as float8 as they are), the
// next ones being fetched meanwhile. A block of 128 channels is summed by the matrix unit in f32, then
// scaled in f32 and added: acc = mac(t, a_scale * b_scale, acc), element by element. A matrix's element
// to invocation mapping is the driver's, so the scales come as a matrix of the same type.
#include "fp8_gemm_fetch.glsl"

#ifdef HADAL_FLOAT8
#define ELEMENT floate4m3_t
const uint ELEMENT_BYTES = 1;
#else
#define ELEMENT float16_t
const uint ELEMENT_BYTES = 2;
#endif
#define Accumulator coopmat<float, gl_ScopeSubgroup, COOP_M, COOP_N, gl_MatrixUseAccumulator>

const uint ROW_WORDS = HADAL_FP8_COOPMAT_ROW_WORDS(BLOCK_K, ELEMENT_BYTES);
const uint PIECES_A = HADAL_FP8_PIECES(TILE_M, BLOCK_K, INVOCATIONS);
const uint PIECES_B = HADAL_FP8_PIECES(TILE_N, BLOCK_K, INVOCATIONS);
const uint ROW_PIECES = BLOCK_K / 16;
const uint SUBGROUPS = (TILE_M / PART_M) * (TILE_N / PART_N);
const uint MATS_M = PART_M / COOP_M;
const uint MATS_N = PART_N / COOP_N;
const uint COOP_K_WORDS = COOP_K * ELEMENT_BYTES / 16;

shared uvec4 a_sh[HADAL_FP8_COOPMAT_WORDS(TILE_M, BLOCK_K, ELEMENT_BYTES)];
shared uvec4 b_sh[HADAL_FP8_COOPMAT_WORDS(TILE_N, BLOCK_K, ELEMENT_BYTES)];
shared float f_sh[HADAL_FP8_COOPMAT_FLOATS(TILE_M, COOP_M, COOP_N, SUBGROUPS)];

#ifndef HADAL_FLOAT8
// Two codes, in the low bytes of the halves of `v`, to two halves of their value, exactly and without
// ever holding a subnormal half, so that no denormal mode matters. The seven low bits placed as
// exponent and mantissa, 8 binades up, are the magnitude where the code is normal, and 2^-7 (1 + m/8)
// for the subnormals m * 2^-9 = 2 * that - 2^-6, which is the smaller of both just there.
uint e4m3x2(uint v) {
  f16vec2 x = unpackFloat2x16(((v & 0x007f007fu) << 7) + 0x20002000u);
  f16vec2 y = min(x, x * float16_t(2.0) - float16_t(0.015625));
  return packFloat2x16(y) | ((v & 0x00800080u) << 8);
}

// Four codes to four halves in the order 0 2 1 3: a and b are permuted alike, which a dot product does
// not see.
uvec2 e4m3x4(uint v) { return uvec2(e4m3x2(v), e4m3x2(v >> 8)); }
#endif

// Piece p of a staged tile.
#ifdef HADAL_FLOAT8
#define STORE_PIECE(words, p, codes) words[((p) / ROW_PIECES) * ROW_WORDS + (p) % ROW_PIECES] = codes
#else
#define STORE_PIECE(words, p, codes)                                    \
  do {                                                                  \
    uint at = ((p) / ROW_PIECES) * ROW_WORDS + ((p) % ROW_PIECES) * 2;  \
    words[at] = uvec4(e4m3x4(codes[0]), e4m3x4(codes[1]));              \
    words[at + 1] = uvec4(e4m3x4(codes[2]), e4m3x4(codes[3]));          \
  } while (false)
#endif

void fp8_gemm_coopmat(uint64_t a, uint64_t a_scale, uint64_t b, uint64_t b_scale, uint n0, uint n, uint k,
                      uint a_stride, uint a_scale_stride, uint b_stride, uint b_scale_stride) {
  const uint id = gl_LocalInvocationIndex;
  const uint part_m = (gl_SubgroupID / (TILE_N / PART_N)) * PART_M;
  const uint part_n = (gl_SubgroupID % (TILE_N / PART_N)) * PART_N;

  // Where this invocation's pieces come from; columns past the edge repeat the last one.
  uint64_t a_row[PIECES_A], b_row[PIECES_B];
  [[unroll]] for (uint i = 0; i < PIECES_A; i++) {
    uint row = min((id + i * INVOCATIONS) / ROW_PIECES, TILE_M - 1);
    a_row[i] = a + uint64_t(path_a_row(row)) * a_stride;
  }
  [[unroll]] for (uint i = 0; i < PIECES_B; i++) {
    uint col = min(n0 + (id + i * INVOCATIONS) / ROW_PIECES, n - 1);
    b_row[i] = b + uint64_t(col) * b_stride;
  }

  Accumulator acc[MATS_M][MATS_N], t[MATS_M][MATS_N];
  [[unroll]] for (uint i = 0; i < MATS_M; i++) {
    [[unroll]] for (uint j = 0; j < MATS_N; j++) acc[i][j] = Accumulator(0.0), t[i][j] = Accumulator(0.0);
  }

  uvec4 a_next[PIECES_A], b_next[PIECES_B];
  // INVOCATIONS is a multiple of ROW_PIECES, so that a piece's place in its row is the same for all i.
  const uint piece_k = (id % ROW_PIECES) * 16;
  [[unroll]] for (uint i = 0; i < PIECES_A; i++) a_next[i] = fetch_piece(a_row[i], piece_k, k);
  [[unroll]] for (uint i = 0; i < PIECES_B; i++) b_next[i] = fetch_piece(b_row[i], piece_k, k);

  [[dont_unroll]] for (uint k0 = 0; k0 < k; k0 += BLOCK_K) {
    const uint kb = k0 / kFp8Block;
    barrier();
    [[unroll]] for (uint i = 0; i < PIECES_A; i++) {
      uint p = id + i * INVOCATIONS;
      if (p < TILE_M * ROW_PIECES) STORE_PIECE(a_sh, p, a_next[i]);
    }
    [[unroll]] for (uint i = 0; i < PIECES_B; i++) {
      uint p = id + i * INVOCATIONS;
      if (p < TILE_N * ROW_PIECES) STORE_PIECE(b_sh, p, b_next[i]);
    }
    if (k0 % kFp8Block == 0) {
      // A tile's columns lie in one block of b, because TILE_N divides 128.
      float sb = FloatIn(b_scale + (uint64_t(n0 / kFp8Block) * b_scale_stride + kb) * 4).v;
      for (uint e = id; e < TILE_M * COOP_N; e += INVOCATIONS) {
        uint64_t row = uint64_t(path_a_row(e / COOP_N));
        precise float scale = FloatIn(a_scale + (row * a_scale_stride + kb) * 4).v * sb;
        f_sh[e] = scale;
      }
    }
    barrier();
    const uint next = k0 + BLOCK_K + piece_k;
    [[unroll]] for (uint i = 0; i < PIECES_A; i++) a_next[i] = fetch_piece(a_row[i], next, k);
    [[unroll]] for (uint i = 0; i < PIECES_B; i++) b_next[i] = fetch_piece(b_row[i], next, k);

    [[unroll]] for (uint kk = 0; kk < BLOCK_K / COOP_K; kk++) {
      coopmat<ELEMENT, gl_ScopeSubgroup, COOP_M, COOP_K, gl_MatrixUseA> am[MATS_M];
      [[unroll]] for (uint i = 0; i < MATS_M; i++) {
        coopMatLoad(am[i], a_sh, (part_m + i * COOP_M) * ROW_WORDS + kk * COOP_K_WORDS, ROW_WORDS,
                    gl_CooperativeMatrixLayoutRowMajor);
      }
      [[unroll]] for (uint j = 0; j < MATS_N; j++) {
        coopmat<ELEMENT, gl_ScopeSubgroup, COOP_K, COOP_N, gl_MatrixUseB> bm;
        coopMatLoad(bm, b_sh, (part_n + j * COOP_N) * ROW_WORDS + kk * COOP_K_WORDS, ROW_WORDS,
                    gl_CooperativeMatrixLayoutColumnMajor);
        [[unroll]] for (uint i = 0; i < MATS_M; i++) t[i][j] = coopMatMulAdd(am[i], bm, t[i][j]);
      }
    }

    const uint end = k0 + BLOCK_K;
    if (end % kFp8Block == 0 || end >= k) {
      [[unroll]] for (uint i = 0; i < MATS_M; i++) {
        Accumulator s;
        coopMatLoad(s, f_sh, (part_m + i * COOP_M) * COOP_N, COOP_N, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint j = 0; j < MATS_N; j++) {
          [[unroll]] for (uint e = 0; e < s.length(); e++) {
            acc[i][j][e] = mac(t[i][j][e], s[e], acc[i][j][e]);
          }
          t[i][j] = Accumulator(0.0);
        }
      }
    }
  }

  // Through shared memory, where an element's row and column are known, matrix by matrix.
  barrier();  // the scales there have been read
  const uint base = gl_SubgroupID * (COOP_M * COOP_N);
  [[unroll]] for (uint i = 0; i < MATS_M; i++) {
    [[unroll]] for (uint j = 0; j < MATS_N; j++) {
      coopMatStore(acc[i][j], f_sh, base, COOP_N, gl_CooperativeMatrixLayoutRowMajor);
      barrier();
      for (uint e = gl_SubgroupInvocationID; e < COOP_M * COOP_N; e += gl_SubgroupSize) {
        uint col = n0 + part_n + j * COOP_N + e % COOP_N;
        if (col < n) path_store(part_m + i * COOP_M + e / COOP_N, col, f_sh[base + e]);
      }
      barrier();
    }
  }
}
