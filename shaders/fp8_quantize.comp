#version 460
#extension GL_GOOGLE_include_directive : require
// fp8_quantize: f32 rows to e4m3 codes with one scale per 128 channels, by the rule of
// lib/quantize.glsl. One workgroup = one row (x) and a run of its groups (y), one group after another.
#include "lib/prelude.glsl"
#include "layout/fp8_quantize.h"
#include "lib/row.glsl"

layout(push_constant, scalar) uniform Push { Fp8QuantizePush pc; };

void main() {
  uint row = gl_WorkGroupID.x, k = pc.k;
  uint64_t x_row = pc.x + uint64_t(row) * pc.x_stride * 4;
  uint64_t q_row = pc.q + uint64_t(row) * pc.q_stride;
  bool bytes = (pc.flags & kFp8QuantizeFlagBytes) != 0;
  uint64_t scale_row = pc.scale + uint64_t(row) * pc.scale_stride * (bytes ? 1 : 4);
  bool ue8m0 = (pc.flags & kFp8QuantizeFlagUe8m0) != 0;
  uint run = pc.groups_per_workgroup * kFp8Block;
  uint begin = gl_WorkGroupID.y * run, end = min(begin + run, k);
  [[dont_unroll]] for (uint group = begin; group < end; group += kFp8Block) {
    uint c = group + quantize_lane_begin();
    float x[QUANTIZE_ELEMS];
    load_row(x_row, c, k, x);
    quantize_group(x, group, k, q_row, scale_row, ue8m0, bytes);
  }
}
