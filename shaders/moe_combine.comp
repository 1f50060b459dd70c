#version 460
#extension GL_GOOGLE_include_directive : require
// moe_combine, the weighted inverse of moe_permute: x[t,:] = (x[t,:]) + (shared[t,:]) + sum over
// slots s ascending of weights[t,s] * y[row_of[t,s],:]. One workgroup = one token x (workgroup
// size * kMoeCombineColumns) columns; invocations lie along the columns and are independent.
#include "lib/prelude.glsl"
#include "layout/moe_permute.h"

layout(push_constant, scalar) uniform Push { MoeCombinePush pc; };

void main() {
  uint token = gl_WorkGroupID.y;
  uint column =
      gl_WorkGroupID.x * (gl_WorkGroupSize.x * kMoeCombineColumns) + gl_LocalInvocationID.x;
  uint64_t x_row = pc.x + uint64_t(token) * pc.x_stride * 4;
  uint64_t shared_row = pc.shared_ + uint64_t(token) * pc.shared_stride * 4;
  uint64_t slots = uint64_t(token) * pc.top_k * 4;

  // Columns past the edge repeat the last one and are not stored.
  uint64_t offset[kMoeCombineColumns];
  float acc[kMoeCombineColumns];
  [[unroll]] for (uint j = 0; j < kMoeCombineColumns; j++) {
    offset[j] = uint64_t(min(column + j * gl_WorkGroupSize.x, pc.hidden - 1)) * 4;
    acc[j] = (pc.flags & kMoeCombineFlagAccumulate) != 0 ? FloatIn(x_row + offset[j]).v : 0.0;
    if ((pc.flags & kMoeCombineFlagShared) != 0) {
      precise float sum = acc[j] + FloatIn(shared_row + offset[j]).v;
      acc[j] = sum;
    }
  }
  for (uint s = 0; s < pc.top_k; s++) {
    uint row = UintIn(pc.row_of + slots + s * 4).v;
    if (row == kMoePermuteNoRow) continue;
    float weight = FloatIn(pc.weights + slots + s * 4).v;
    uint64_t y_row = pc.y + uint64_t(row) * pc.y_stride * 4;
    [[unroll]] for (uint j = 0; j < kMoeCombineColumns; j++) {
      acc[j] = mac(weight, FloatIn(y_row + offset[j]).v, acc[j]);
    }
  }
  [[unroll]] for (uint j = 0; j < kMoeCombineColumns; j++) {
    if (column + j * gl_WorkGroupSize.x < pc.hidden) FloatOut(x_row + offset[j]).v = acc[j];
  }
}
