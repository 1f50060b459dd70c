#version 460
#extension GL_GOOGLE_include_directive : require
// swiglu: y = silu(gate) * up, stored as float and/or quantised by lib/quantize.glsl. One workgroup =
// one row (x) and a run of its groups of 128 channels (y), one group after another.
#include "lib/prelude.glsl"
#include "layout/swiglu.h"
#include "lib/row.glsl"
#include "lib/silu.glsl"

layout(push_constant, scalar) uniform Push { SwigluPush pc; };

void main() {
  uint row = gl_WorkGroupID.x, n = pc.n, flags = pc.flags;
  uint64_t gate_row = pc.gate + uint64_t(row) * pc.gate_stride * 4;
  uint64_t up_row = pc.up + uint64_t(row) * pc.up_stride * 4;
  uint64_t y_row = pc.y + uint64_t(row) * pc.y_stride * 4;
  uint64_t q_row = pc.q + uint64_t(row) * pc.q_stride;
  uint64_t scale_row = pc.scale + uint64_t(row) * pc.scale_stride * 4;
  uint run = pc.groups_per_workgroup * kFp8Block;
  uint begin = gl_WorkGroupID.y * run, end = min(begin + run, n);
  [[dont_unroll]] for (uint group = begin; group < end; group += kFp8Block) {
    uint c = group + quantize_lane_begin();
    float gate[QUANTIZE_ELEMS], up[QUANTIZE_ELEMS];
    load_row(gate_row, c, n, gate);
    load_row(up_row, c, n, up);
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
      precise float y = silu(gate[i]) * up[i];
      gate[i] = y;
    }
    if ((flags & kSwigluFlagWriteY) != 0) store_row(y_row, c, n, gate);
    if ((flags & kSwigluFlagQuantize) != 0) {
      quantize_group(gate, group, n, q_row, scale_row, (flags & kSwigluFlagUe8m0) != 0);
    }
  }
}
