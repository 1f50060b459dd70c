// Everything that kernels/fp8_gemm.cpp and shaders/fp8_gemm.comp both know.
#ifndef HADAL_LAYOUT_FP8_GEMM_H_
#define HADAL_LAYOUT_FP8_GEMM_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kFp8GemmSpecTileM, 10);  // rows of d per workgroup
HADAL_CONST(kFp8GemmSpecTileN, 11);  // columns of d per invocation
HADAL_CONST(kFp8GemmSpecDBf16, 12);  // 1: d is bfloat16
// Forms of the scales.
HADAL_CONST(kFp8GemmSpecAScaleE8m0, 20);   // 1: a_scale is e8m0, one byte each
HADAL_CONST(kFp8GemmSpecBScaleE8m0, 21);   // 1: b_scale is e8m0
HADAL_CONST(kFp8GemmSpecBScaleShift, 22);  // rows of b per row of b_scale: 1 << this, 7 or 0

HADAL_CONST(kFp8GemmFlagAccumulate, 1);  // d += instead of d =

struct Fp8GemmPush {
  uint64_t a;        // [m, k] e4m3
  uint64_t a_scale;  // [m, ceil(k/128)] float
  uint64_t b;        // [n, k] e4m3
  uint64_t b_scale;  // [ceil(n/128), ceil(k/128)] float
  uint64_t d;        // [m, n] float or bfloat16
  uint m;
  uint n;
  uint k;
  uint a_stride;        // bytes between rows
  uint a_scale_stride;  // elements
  uint b_stride;        // bytes
  uint b_scale_stride;  // elements
  uint d_stride;        // elements
  uint flags;
  uint reserved;
};
HADAL_CHECK_SIZE(Fp8GemmPush, 80);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_FP8_GEMM_H_
