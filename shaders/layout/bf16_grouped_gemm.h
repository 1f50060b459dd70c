// Everything that kernels/bf16_grouped_gemm.cpp and shaders/bf16_grouped_gemm.comp both know.
#ifndef HADAL_LAYOUT_BF16_GROUPED_GEMM_H_
#define HADAL_LAYOUT_BF16_GROUPED_GEMM_H_

#include "moe_tiles.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kBf16GroupedGemmSpecTileM, 10);  // rows of d per tile of the list
HADAL_CONST(kBf16GroupedGemmSpecTileN, 11);  // columns of d per invocation
HADAL_CONST(kBf16GroupedGemmSpecDBf16, 12);  // 1: d is bfloat16
// Scalar path, as kBf16GemmSpec...
HADAL_CONST(kBf16GroupedGemmSpecStepK, 14);
HADAL_CONST(kBf16GroupedGemmSpecRowGroup, 15);

struct Bf16GroupedGemmPush {
  uint64_t a;        // [tokens, k] float
  uint64_t a_rows;   // [rows] uint, or 0: row r of d is of row r of a
  uint64_t experts;  // ExpertWeight [experts]
  uint64_t tiles;    // MoeTile [workgroups in y]
  uint64_t d;        // [rows, n] float or bfloat16
  uint n;
  uint k;
  uint a_stride;  // elements between rows
  uint b_stride;  // elements
  uint d_stride;  // elements
  uint reserved;
};
HADAL_CHECK_SIZE(Bf16GroupedGemmPush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_BF16_GROUPED_GEMM_H_
