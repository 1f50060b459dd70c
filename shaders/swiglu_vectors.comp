#version 460
#extension GL_GOOGLE_include_directive : require
// swiglu for CPU drivers (lib/row_vectors.glsl), y alone; with codes swiglu_pairs.comp. One workgroup = one row (y)
// and a run of at most LANES of its groups (x), so that workgroups follow each other in memory.
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
  uint row = gl_WorkGroupID.y, n = pc.n;
  uint64_t gate_row = pc.gate + uint64_t(row) * pc.gate_stride * 4;
  uint64_t up_row = pc.up + uint64_t(row) * pc.up_stride * 4;
  uint64_t y_row = pc.y + uint64_t(row) * pc.y_stride * 4;
  uint run = pc.groups_per_workgroup * kFp8Block;
  uint begin = gl_WorkGroupID.x * run, end = min(begin + run, n);
  uint whole_end = min(end, n / kFp8Block * kFp8Block);

  float gate[VECTORS], up[VECTORS];
  uint cursor = start_at(begin), last = max(whole_end, kFp8Block) - kFp8Block;
  if (begin < whole_end) [[dont_unroll]] while (position_of(cursor) < whole_end) {
    uint group = min(position_of(cursor), last);
    load_group(gate_row + uint64_t(group) * 4, gate);
    load_group(up_row + uint64_t(group) * 4, up);
    apply(gate, up);
    store_group(y_row + uint64_t(group) * 4, gate);
    cursor += kFp8Block;
  }
  if (whole_end < end) {  // the row's last group, not a whole one
    uint count = end - whole_end;
    load_part(gate_row + uint64_t(whole_end) * 4, count, gate);
    load_part(up_row + uint64_t(whole_end) * 4, count, up);
    apply(gate, up);
    store_part(y_row + uint64_t(whole_end) * 4, count, gate);
  }
}
