#version 460
#extension GL_GOOGLE_include_directive : require
// rms_norm for CPU drivers (lib/row_vectors.glsl). One workgroup = one row, walked twice as in
// rms_norm.comp, the squares summed in the same order.
#include "lib/prelude.glsl"
#include "layout/rms_norm.h"
#include "lib/row_vectors.glsl"

layout(push_constant, scalar) uniform Push { RmsNormPush pc; };

bool has(uint flag) { return (pc.flags & flag) != 0; }

void add(inout float h[VECTORS], float r[VECTORS]) {
  [[unroll]] for (uint i = 0; i < VECTORS; i++) {
    precise float sum = h[i] + r[i];
    h[i] = sum;
  }
}

void scale_row_by(inout float h[VECTORS], float w[VECTORS], float inverse_rms) {
  [[unroll]] for (uint i = 0; i < VECTORS; i++) {
    precise float unit = h[i] * inverse_rms;
    precise float y = unit * w[i];
    h[i] = y;
  }
}

void main() {
  uint row = gl_WorkGroupID.x, n = pc.n, lane = gl_SubgroupInvocationID;
  uint64_t x_row = pc.x + uint64_t(row) * pc.x_stride * 4;
  uint64_t residual_row = pc.residual + uint64_t(row) * pc.residual_stride * 4;
  uint64_t h_row = pc.h + uint64_t(row) * pc.h_stride * 4;
  uint64_t y_row = pc.y + uint64_t(row) * pc.y_stride * 4;
  uint64_t q_row = pc.q + uint64_t(row) * pc.q_stride;
  uint64_t scale_row = pc.scale + uint64_t(row) * pc.scale_stride * 4;
  uint whole_end = n / kFp8Block * kFp8Block, count = n - whole_end;
  uint64_t part = uint64_t(whole_end) * 4;
  float h[VECTORS], other[VECTORS];

  // The first walk, which computes little, touches what the second writes; else x again.
  bool whole = whole_end > 0;
  uint64_t y_lines = whole && has(kRmsNormFlagWriteY) ? y_row : x_row;
  uint64_t h_lines = whole && has(kRmsNormFlagWriteH) ? h_row : x_row;
  uint64_t q_lines = whole && has(kRmsNormFlagQuantize) ? q_row : x_row;
  uint touched = lane;

  float squares[ROW_CHAINS];
  [[unroll]] for (uint j = 0; j < ROW_CHAINS; j++) squares[j] = 0.0;
  uint cursor = start_at(0);
  if (whole) [[dont_unroll]] do {
    uint64_t group = uint64_t(position_of(cursor)) * 4;
    load_group(x_row + group, h);
    if (has(kRmsNormFlagResidual)) {
      load_group(residual_row + group, other);
      add(h, other);
    }
    touch(y_lines + group, kFp8Block * 4, touched);
    touch(h_lines + group, kFp8Block * 4, touched);
    touch(q_lines + group / 4, kFp8Block, touched);
    add_squares(h, squares);
    cursor += kFp8Block;
  } while (position_of(cursor) < whole_end);
  if (count > 0) {
    load_part(x_row + part, count, h);
    if (has(kRmsNormFlagResidual)) {
      load_part(residual_row + part, count, other);
      add(h, other);
    }
    add_squares(h, squares);
  }
  precise float mean = sum_chains(squares) * pc.inverse_n;
  precise float variance = mean + pc.eps;
  float inverse_rms = inversesqrt(variance);

  float scale = 0.0;  // of the group with this invocation's index among the latest LANES
  cursor = start_at(0);
  if (whole) [[dont_unroll]] do {
    uint at = position_of(cursor);
    uint64_t group = uint64_t(at) * 4;
    load_group(x_row + group, h);
    if (has(kRmsNormFlagResidual)) {
      load_group(residual_row + group, other);
      add(h, other);
    }
    if (has(kRmsNormFlagWriteH)) store_group(h_row + group, h);
    load_group(pc.weight + group, other);
    scale_row_by(h, other, inverse_rms);
    if (has(kRmsNormFlagWriteY)) store_group(y_row + group, h);
    if (has(kRmsNormFlagQuantize)) {
      Fp8Scale s = fp8_scale(group_amax(h), has(kRmsNormFlagUe8m0));
      store_codes(h, s, q_row + uint64_t(at), true, 0);
      uint index = at / kFp8Block % LANES;
      scale = index == lane ? s.scale : scale;
      if (index == LANES - 1 || at + kFp8Block == whole_end) {
        if (lane <= index) FloatOut(scale_row + (at / kFp8Block - index + lane) * 4).v = scale;
      }
    }
    cursor += kFp8Block;
  } while (position_of(cursor) < whole_end);
  use_touched(touched, n == 0, y_lines);
  if (count > 0) {
    load_part(x_row + part, count, h);
    if (has(kRmsNormFlagResidual)) {
      load_part(residual_row + part, count, other);
      add(h, other);
    }
    if (has(kRmsNormFlagWriteH)) store_part(h_row + part, count, h);
    load_part(pc.weight + part, count, other);
    scale_row_by(h, other, inverse_rms);
    if (has(kRmsNormFlagWriteY)) store_part(y_row + part, count, h);
    if (has(kRmsNormFlagQuantize)) {
      Fp8Scale s = fp8_scale(group_amax(h), has(kRmsNormFlagUe8m0));
      store_codes(h, s, q_row + uint64_t(whole_end), false, count);
      FloatOut(scale_row + whole_end / kFp8Block * 4).v = s.scale;
    }
  }
}
