// Everything that kernels/fp8_quantize.cpp and shaders/fp8_quantize.comp both know.
#ifndef HADAL_LAYOUT_FP8_QUANTIZE_H_
#define HADAL_LAYOUT_FP8_QUANTIZE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kFp8QuantizeFlagUe8m0, 1);  // scales are powers of two
HADAL_CONST(kFp8QuantizeFlagBytes, 2);  // and stored as e8m0

struct Fp8QuantizePush {
  uint64_t x;      // [rows, k] float
  uint64_t q;      // [rows, k] e4m3
  uint64_t scale;  // [rows, ceil(k/128)] float or e8m0
  uint k;
  uint x_stride;      // elements between rows
  uint q_stride;      // bytes
  uint scale_stride;  // elements
  uint groups_per_workgroup;
  uint flags;
};
HADAL_CHECK_SIZE(Fp8QuantizePush, 48);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_FP8_QUANTIZE_H_
