// Everything that kernels/bf16_gemm.cpp and shaders/bf16_gemm.comp both know.
#ifndef HADAL_LAYOUT_BF16_GEMM_H_
#define HADAL_LAYOUT_BF16_GEMM_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kBf16GemmSpecTileM, 10);  // rows of d per workgroup
HADAL_CONST(kBf16GemmSpecTileN, 11);  // columns of d per invocation
HADAL_CONST(kBf16GemmSpecABf16, 12);  // 1: a is bfloat16
HADAL_CONST(kBf16GemmSpecDBf16, 13);  // 1: d is bfloat16
// Scalar path.
HADAL_CONST(kBf16GemmSpecStepK, 14);     // channels per turn of the inner loop, divides 128
HADAL_CONST(kBf16GemmSpecRowGroup, 15);  // rows whose sums are in registers together, divides TileM

HADAL_CONST(kBf16GemmFlagAccumulate, 1);  // d += instead of d =

struct Bf16GemmPush {
  uint64_t a;  // [m, k] float or bfloat16
  uint64_t b;  // [n, k] bfloat16
  uint64_t d;  // [m, n] float or bfloat16
  uint m;
  uint n;
  uint k;
  uint a_stride;  // elements between rows
  uint b_stride;  // elements
  uint d_stride;  // elements
  uint flags;
  uint a_batch_stride;  // elements, as the other two
  uint b_batch_stride;
  uint d_batch_stride;
};
HADAL_CHECK_SIZE(Bf16GemmPush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_BF16_GEMM_H_
