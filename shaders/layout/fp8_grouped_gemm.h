// Everything that kernels/fp8_grouped_gemm.cpp and shaders/fp8_grouped_gemm.comp both know.
#ifndef HADAL_LAYOUT_FP8_GROUPED_GEMM_H_
#define HADAL_LAYOUT_FP8_GROUPED_GEMM_H_

#include "moe_tiles.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kFp8GroupedGemmSpecTileM, 10);  // rows of d per tile of the list
HADAL_CONST(kFp8GroupedGemmSpecTileN, 11);  // columns of d per invocation
HADAL_CONST(kFp8GroupedGemmSpecDBf16, 12);  // 1: d is bfloat16
// Forms of the scales.
HADAL_CONST(kFp8GroupedGemmSpecAScaleE8m0, 20);   // 1: a_scale is e8m0, one byte each
HADAL_CONST(kFp8GroupedGemmSpecBScaleE8m0, 21);   // 1: b_scale is e8m0
HADAL_CONST(kFp8GroupedGemmSpecBScaleShift, 22);  // rows of b per row of b_scale: 1 << this, 7 or 0

struct Fp8GroupedGemmPush {
  uint64_t a;        // [tokens, k] e4m3
  uint64_t a_scale;  // [tokens, ceil(k/128)] float
  uint64_t a_rows;   // [rows] uint, or 0: row r of d is of row r of a
  uint64_t experts;  // ExpertWeight [experts]
  uint64_t tiles;    // MoeTile [workgroups in y]
  uint64_t d;        // [rows, n] float or bfloat16
  uint n;
  uint k;
  uint a_stride;        // bytes between rows
  uint a_scale_stride;  // elements
  uint b_stride;        // bytes
  uint b_scale_stride;  // elements
  uint d_stride;        // elements
  uint reserved;
};
HADAL_CHECK_SIZE(Fp8GroupedGemmPush, 80);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_FP8_GROUPED_GEMM_H_
