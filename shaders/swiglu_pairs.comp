#version 460
#extension GL_GOOGLE_include_directive : require
// swiglu for CPU drivers where it quantises: swiglu_vectors.comp with two groups a turn, whose long chains of
// operations (exponential, division, maximum, scale) run side by side.
#include "lib/prelude.glsl"
#include "layout/swiglu.h"
#include "lib/row_vectors.glsl"
#include "lib/silu.glsl"

layout(push_constant, scalar) uniform Push { SwigluPush pc; };

void apply(inout float gate[VECTORS], float up[VECTORS]) {
  [[unroll]] for (uint i = 0; i < VECTORS; i++) {
    precise float y = silu(gate[i]) * up[i];
    gate[i] = y;
  }
}

void main() {
  uint row = gl_WorkGroupID.y, n = pc.n, flags = pc.flags;
  uint64_t gate_row = pc.gate + uint64_t(row) * pc.gate_stride * 4;
  uint64_t up_row = pc.up + uint64_t(row) * pc.up_stride * 4;
  uint64_t y_row = pc.y + uint64_t(row) * pc.y_stride * 4;
  uint64_t q_row = pc.q + uint64_t(row) * pc.q_stride;
  uint run = pc.groups_per_workgroup * kFp8Block, lane = gl_SubgroupInvocationID;
  uint begin = gl_WorkGroupID.x * run, end = min(begin + run, n);
  uint64_t scale_run = pc.scale + uint64_t(row) * pc.scale_stride * 4 + begin / kFp8Block * 4;
  bool write_y = (flags & kSwigluFlagWriteY) != 0, quantize = (flags & kSwigluFlagQuantize) != 0;
  bool ue8m0 = (flags & kSwigluFlagUe8m0) != 0;
  uint whole_end = min(end, n / kFp8Block * kFp8Block);

  float gate[VECTORS], up[VECTORS];
  uint last = max(whole_end, kFp8Block) - kFp8Block;
  float scale = 0.0;  // of the run's group with this invocation's index
  float second[VECTORS];
  uint cursor = start_at(begin);
  if (begin < whole_end) [[dont_unroll]] while (position_of(cursor) < whole_end) {
    // At the end of an odd number the last group twice.
    uint at = min(position_of(cursor), last), at2 = min(at + kFp8Block, last);
    load_group(gate_row + uint64_t(at) * 4, gate);
    load_group(up_row + uint64_t(at) * 4, up);
    apply(gate, up);
    load_group(gate_row + uint64_t(at2) * 4, second);
    load_group(up_row + uint64_t(at2) * 4, up);
    apply(second, up);
    if (write_y) {
      store_group(y_row + uint64_t(at) * 4, gate);
      store_group(y_row + uint64_t(at2) * 4, second);
    }
    if (quantize) {
      uint amax = group_amax(gate), amax2 = group_amax(second);
      Fp8Scale s = fp8_scale(lane == 0 ? amax : amax2, ue8m0);
      store_codes(gate, Fp8Scale(0.0, subgroupBroadcast(s.inverse, 0), subgroupBroadcast(s.mask, 0)),
                  q_row + uint64_t(at), true, 0);
      store_codes(second, Fp8Scale(0.0, subgroupBroadcast(s.inverse, 1), subgroupBroadcast(s.mask, 1)),
                  q_row + uint64_t(at2), true, 0);
      scale = (at2 - begin) / kFp8Block == lane ? subgroupBroadcast(s.scale, 1) : scale;
      scale = (at - begin) / kFp8Block == lane ? subgroupBroadcast(s.scale, 0) : scale;
    }
    cursor += 2 * kFp8Block;
  }
  if (whole_end < end) {  // the row's last group, not a whole one
    uint count = end - whole_end;
    load_part(gate_row + uint64_t(whole_end) * 4, count, gate);
    load_part(up_row + uint64_t(whole_end) * 4, count, up);
    apply(gate, up);
    if (write_y) store_part(y_row + uint64_t(whole_end) * 4, count, gate);
    if (quantize) {
      Fp8Scale s = fp8_scale(group_amax(gate), ue8m0);
      store_codes(gate, s, q_row + uint64_t(whole_end), false, count);
      scale = (whole_end - begin) / kFp8Block == lane ? s.scale : scale;
    }
  }
  if (quantize && lane * kFp8Block < end - begin) FloatOut(scale_run + lane * 4).v = scale;
}
