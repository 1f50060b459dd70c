#version 460
#extension GL_GOOGLE_include_directive : require
// moe_combine for CPU drivers (lib/row_vectors.glsl): one workgroup = one token (y) and a run of groups
// of 128 columns (x), each group summed over the token's slots in their order, as in moe_combine.comp.
#include "lib/prelude.glsl"
#include "layout/moe_permute.h"
#include "lib/row_vectors.glsl"

layout(push_constant, scalar) uniform Push { MoeCombinePush pc; };

void load(uint64_t group, uint count, out float v[VECTORS]) {
  if (count == kFp8Block) {
    load_group(group, v);
  } else {
    load_part(group, count, v);
  }
}

void main() {
  uint token = gl_WorkGroupID.y, group = gl_WorkGroupID.x * kFp8Block;
  uint count = min(kFp8Block, pc.hidden - group);
  uint64_t x = pc.x + (uint64_t(token) * pc.x_stride + group) * 4;
  uint64_t shared_ = pc.shared_ + (uint64_t(token) * pc.shared_stride + group) * 4;
  uint64_t slots = uint64_t(token) * pc.top_k * 4;

  float acc[VECTORS], v[VECTORS];
  [[unroll]] for (uint i = 0; i < VECTORS; i++) acc[i] = 0.0;
  if ((pc.flags & kMoeCombineFlagAccumulate) != 0) load(x, count, acc);
  if ((pc.flags & kMoeCombineFlagShared) != 0) {
    load(shared_, count, v);
    [[unroll]] for (uint i = 0; i < VECTORS; i++) {
      precise float sum = acc[i] + v[i];
      acc[i] = sum;
    }
  }
  // The loop's loads run in a last turn, too, and even if top_k is 0: the host's addresses are legal then.
  uint cursor = start_at(0), last = max(pc.top_k, 1) - 1;
  [[dont_unroll]] while (position_of(cursor) < pc.top_k) {
    uint64_t slot = slots + uint64_t(min(position_of(cursor), last)) * 4;
    uint row = UintIn(pc.row_of + slot).v;
    if (row != kMoePermuteNoRow) {
      float weight = FloatIn(pc.weights + slot).v;
      load(pc.y + (uint64_t(row) * pc.y_stride + group) * 4, count, v);
      [[unroll]] for (uint i = 0; i < VECTORS; i++) acc[i] = mac(weight, v[i], acc[i]);
    }
    cursor++;
  }
  if (count == kFp8Block) {
    store_group(x, acc);
  } else {
    store_part(x, count, acc);
  }
}
