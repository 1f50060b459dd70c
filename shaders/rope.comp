#version 460
#extension GL_GOOGLE_include_directive : require
// rope: rotates pairs of channels in place by table[position]. One workgroup = one row x
// heads_per_group heads; invocations lie along the pairs of a head, so that cos and sin are read
// once for all the heads. Invocations are independent: right at any subgroup size.
#include "lib/prelude.glsl"
#include "layout/rope.h"
#include "lib/rope.glsl"

layout(push_constant, scalar) uniform Push { RopePush pc; };

void main() {
  uint row = gl_WorkGroupID.x;
  uint head_begin = gl_WorkGroupID.y * pc.heads_per_group;
  uint head_end = min(head_begin + pc.heads_per_group, pc.heads);
  uint position = UintIn(pc.positions + uint64_t(row) * 4).v;
  for (uint i = gl_LocalInvocationID.x; i < pc.pairs; i += gl_WorkGroupSize.x) {
    vec2 cos_sin = rope_cos_sin(pc.table, position, pc.max_position, pc.pairs, i);
    uint64_t x = pc.x + (uint64_t(row) * pc.row_stride + uint64_t(head_begin) * pc.head_stride +
                         pc.offset + i * pc.pair_step) * 4;
    for (uint h = head_begin; h < head_end; h++) {
      FloatOut first = FloatOut(x), second = FloatOut(x + pc.partner * 4);
      vec2 rotated = rope_rotate(vec2(first.v, second.v), cos_sin);
      first.v = rotated.x;
      second.v = rotated.y;
      x += pc.head_stride * 4;
    }
  }
}
