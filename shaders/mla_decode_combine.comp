#version 460
#extension GL_GOOGLE_include_directive : require
// mla_decode, second dispatch: folds a token's splits left to right and normalises.
// One workgroup = one head (x) of one token (y); invocations lie along the latent channels and are
// independent. One split passes through unchanged: the bits are those of the single dispatch.
// VECTORS: a CPU driver that keeps uniform values in scalar registers, a workgroup of one subgroup and a
// rank that is a multiple of twice its size; neighbouring floats are then one vector load instead of a
// gather (lib/attention_lanes.glsl).
#include "lib/prelude.glsl"
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
#include "layout/mla_decode.h"
#include "lib/attention_result.glsl"

layout(constant_id = kMlaDecodeSpecOutBf16) const uint OUT_BF16 = 0;

layout(constant_id = kMlaDecodeSpecPairs) const uint PAIRS = 1;  // of channels per invocation
layout(constant_id = kMlaDecodeSpecVectors) const uint VECTORS = 0;

layout(push_constant, scalar) uniform Push { MlaDecodePush pc; };

#include "lib/mla_decode_token.glsl"

// exp(from - to), exactly 1 when they are equal (also at -infinity); from <= to.
float rescale(float from, float to) {
  return from == to ? 1.0 : exp(from - to);
}

// Pair number `index` of a row of floats: VECTORS: channels 2 * size * i + id and size further; else
// neighbours.
uint first_channel(uint i) {
  return VECTORS != 0 ? i * 2 * gl_WorkGroupSize.x + gl_LocalInvocationID.x
                      : 2 * (i * gl_WorkGroupSize.x + gl_LocalInvocationID.x);
}
uint channel_step() { return VECTORS != 0 ? gl_WorkGroupSize.x : 1; }

vec2 load_pair(uint64_t row, uint i) {
  if (VECTORS == 0) {
    uint64_t at = row + min(first_channel(i), pc.rank - 2) * 4;  // past the end: the last, not stored
    return vec2(FloatIn(at).v, FloatIn(at + 4).v);
  }
  uint64_t first = row + uint64_t(i * 2 * gl_WorkGroupSize.x * 4);
  vec2 result = vec2(0.0);
  [[unroll]] for (uint lane = 0; lane < min(gl_WorkGroupSize.x, 16); lane++) {
    uint64_t at = first + uint64_t(lane * 4);
    float low = FloatIn(at).v, high = FloatIn(at + uint64_t(gl_WorkGroupSize.x * 4)).v;
    result.x = gl_SubgroupInvocationID == lane ? low : result.x;
    result.y = gl_SubgroupInvocationID == lane ? high : result.y;
  }
  return result;
}

void main() {
  uint head = gl_WorkGroupID.x, token = gl_WorkGroupID.y;
  uint all_splits = (pc.max_kv_len + kMlaDecodeSplitKeys - 1) / kMlaDecodeSplitKeys;
  uint splits = (token_keys(token) + kMlaDecodeSplitKeys - 1) / kMlaDecodeSplitKeys;
  uint64_t index = uint64_t(token) * all_splits * heads() + head;
  float m = 0.0, l = 0.0;
  vec2 o[PAIRS];
  [[unroll]] for (uint i = 0; i < PAIRS; i++) o[i] = vec2(0.0);
  uint split = 0, cursor = 2 * gl_SubgroupInvocationID;  // lib/attention_lanes.glsl: start_at
  if (splits > 0) [[dont_unroll]] do {
    if (VECTORS != 0) split = subgroupBroadcast(cursor, 0);
    cursor++;
    uint64_t partial = index + uint64_t(split) * uint64_t(heads());
    float split_m = FloatIn(pc.partial_ml + partial * 8ul).v;
    float split_l = FloatIn(pc.partial_ml + partial * 8ul + 4ul).v;
    uint64_t row = pc.partial_o + partial * uint64_t(pc.rank) * 4ul;
    bool first = split == 0;
    float m_new = first ? split_m : max(m, split_m);
    float a = rescale(m, m_new), b = rescale(split_m, m_new);
    precise float scaled_l = l * a;
    l = first ? split_l : mac(split_l, b, scaled_l);
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
      vec2 part = load_pair(row, i);
      precise vec2 scaled = o[i] * a;
      vec2 sum = vec2(mac(part.x, b, scaled.x), mac(part.y, b, scaled.y));
      o[i] = first ? part : sum;
    }
    m = m_new;
    split++;
  } while (split < splits);

  uint64_t result = uint64_t(token) * pc.o_row_stride + uint64_t(head) * pc.o_head_stride;
  [[unroll]] for (uint i = 0; i < PAIRS; i++) {
    uint c = first_channel(i);
    if (c + channel_step() < pc.rank) {
      vec2 value = attention_normalise(o[i], l);
      attention_store_one(OUT_BF16 != 0, pc.o, result + c, value.x);
      attention_store_one(OUT_BF16 != 0, pc.o, result + c + channel_step(), value.y);
    }
  }
  if (gl_LocalInvocationID.x == 0 && pc.lse != 0) {
    FloatOut(pc.lse + (uint64_t(token) * heads() + head) * 4).v = attention_lse(m, l);
  }
}
