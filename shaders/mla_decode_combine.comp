#version 460
#extension GL_GOOGLE_include_directive : require
// mla_decode, second dispatch: folds a token's splits left to right and normalises.
// One workgroup = one head (x) of one token (y); invocations lie along the latent channels and are
// independent. One split passes through unchanged: the bits are those of the single dispatch.
#include "lib/prelude.glsl"
#include "layout/mla_decode.h"
#include "lib/attention_result.glsl"

layout(constant_id = kMlaDecodeSpecOutBf16) const uint OUT_BF16 = 0;

layout(push_constant, scalar) uniform Push { MlaDecodePush pc; };

#include "lib/mla_decode_token.glsl"

// exp(from - to), exactly 1 when they are equal (also at -infinity); from <= to.
float rescale(float from, float to) {
  return from == to ? 1.0 : exp(from - to);
}

void main() {
  uint head = gl_WorkGroupID.x, token = gl_WorkGroupID.y;
  uint all_splits = (pc.max_kv_len + kMlaDecodeSplitKeys - 1) / kMlaDecodeSplitKeys;
  uint kv_len = token_keys(token);
  uint splits = (kv_len + kMlaDecodeSplitKeys - 1) / kMlaDecodeSplitKeys;
  uint64_t first = uint64_t(token) * all_splits * heads() + head;
  uint64_t result = uint64_t(token) * pc.o_row_stride + uint64_t(head) * pc.o_head_stride;
  for (uint pair = gl_LocalInvocationID.x; pair < pc.rank / 2; pair += gl_WorkGroupSize.x) {
    float m = 0.0, l = 0.0;
    vec2 o = vec2(0.0);
    for (uint split = 0; split < splits; split++) {
      uint64_t index = first + uint64_t(split) * heads();
      float split_m = FloatIn(pc.partial_ml + index * 8).v;
      float split_l = FloatIn(pc.partial_ml + index * 8 + 4).v;
      uint64_t row = pc.partial_o + (index * pc.rank + pair * 2) * 4;
      vec2 split_o = vec2(FloatIn(row).v, FloatIn(row + 4).v);
      if (split == 0) {
        m = split_m;
        l = split_l;
        o = split_o;
      } else {
        float m_new = max(m, split_m);
        float a = rescale(m, m_new), b = rescale(split_m, m_new);
        precise float scaled_l = l * a;
        precise vec2 scaled_o = o * a;
        l = mac(split_l, b, scaled_l);
        o = vec2(mac(split_o.x, b, scaled_o.x), mac(split_o.y, b, scaled_o.y));
        m = m_new;
      }
    }
    attention_store(OUT_BF16 != 0, pc.o, result + pair * 2, attention_normalise(o, l));
    if (pair == 0 && pc.lse != 0) {
      FloatOut(pc.lse + (uint64_t(token) * heads() + head) * 4).v = attention_lse(m, l);
    }
  }
}
