// Everything that kernels/rms_norm.cpp and shaders/rms_norm.comp both know.
#ifndef HADAL_LAYOUT_RMS_NORM_H_
#define HADAL_LAYOUT_RMS_NORM_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kRmsNormFlagResidual, 1);  // h = x + residual
HADAL_CONST(kRmsNormFlagWriteH, 2);
HADAL_CONST(kRmsNormFlagWriteY, 4);
HADAL_CONST(kRmsNormFlagQuantize, 8);
HADAL_CONST(kRmsNormFlagUe8m0, 16);  // scales are powers of two

struct RmsNormPush {
  uint64_t x;         // [rows, n] float
  uint64_t residual;  // [rows, n] float
  uint64_t weight;    // [n] float
  uint64_t h;         // [rows, n] float
  uint64_t y;         // [rows, n] float
  uint64_t q;         // [rows, n] e4m3
  uint64_t scale;     // [rows, ceil(n/128)] float
  uint n;
  uint x_stride;  // elements between rows
  uint residual_stride;
  uint h_stride;
  uint y_stride;
  uint q_stride;  // bytes
  uint scale_stride;
  uint flags;
  float eps;
  float inverse_n;  // 1/n
};
HADAL_CHECK_SIZE(RmsNormPush, 96);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_RMS_NORM_H_
