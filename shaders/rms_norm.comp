#version 460
#extension GL_GOOGLE_include_directive : require
// rms_norm: h = x (+ residual); y = h / sqrt(mean(h^2) + eps) * weight, stored as float and/or
// quantised by lib/quantize.glsl. One workgroup = one row, walked twice in groups of 128: the squares are
// summed (row_sum: an order that no workgroup size changes), then h is read again (the sum
// h = x + residual rounds the same), which keeps rows of any length out of registers. h is stored in
// the second walk, by the invocation that reads the channel, so that h may overwrite x or residual.
#include "lib/prelude.glsl"
#include "layout/rms_norm.h"
#include "lib/row.glsl"

layout(push_constant, scalar) uniform Push { RmsNormPush pc; };

void load_h(uint64_t x_row, uint64_t residual_row, uint c, uint n, bool add,
            out float h[QUANTIZE_ELEMS]) {
  load_row(x_row, c, n, h);
  if (add) {
    float r[QUANTIZE_ELEMS];
    load_row(residual_row, c, n, r);
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
      precise float sum = h[i] + r[i];
      h[i] = sum;
    }
  }
}

void main() {
  uint row = gl_WorkGroupID.x, n = pc.n, flags = pc.flags;
  uint64_t x_row = pc.x + uint64_t(row) * pc.x_stride * 4;
  uint64_t residual_row = pc.residual + uint64_t(row) * pc.residual_stride * 4;
  uint64_t h_row = pc.h + uint64_t(row) * pc.h_stride * 4;
  uint64_t y_row = pc.y + uint64_t(row) * pc.y_stride * 4;
  uint64_t q_row = pc.q + uint64_t(row) * pc.q_stride;
  uint64_t scale_row = pc.scale + uint64_t(row) * pc.scale_stride * 4;
  bool add = (flags & kRmsNormFlagResidual) != 0;
  float h[QUANTIZE_ELEMS];

  float squares[ROW_CHAINS];
  [[unroll]] for (uint j = 0; j < ROW_CHAINS; j++) squares[j] = 0.0;
  [[dont_unroll]] for (uint group = 0; group < n; group += kFp8Block) {
    load_h(x_row, residual_row, group + quantize_lane_begin(), n, add, h);
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
      squares[i / 4] = mac(h[i], h[i], squares[i / 4]);
    }
  }
  precise float mean = row_sum(squares) * pc.inverse_n;
  precise float variance = mean + pc.eps;
  float inverse_rms = inversesqrt(variance);

  [[dont_unroll]] for (uint group = 0; group < n; group += kFp8Block) {
    uint c = group + quantize_lane_begin();
    load_h(x_row, residual_row, c, n, add, h);
    if ((flags & kRmsNormFlagWriteH) != 0) store_row(h_row, c, n, h);
    float w[QUANTIZE_ELEMS];
    load_row(pc.weight, c, n, w);
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
      precise float unit = h[i] * inverse_rms;
      precise float y = unit * w[i];
      h[i] = y;
    }
    if ((flags & kRmsNormFlagWriteY) != 0) store_row(y_row, c, n, h);
    if ((flags & kRmsNormFlagQuantize) != 0) {
      quantize_group(h, group, n, q_row, scale_row, (flags & kRmsNormFlagUe8m0) != 0);
    }
  }
}
