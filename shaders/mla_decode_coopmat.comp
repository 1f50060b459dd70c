#version 460
#extension GL_GOOGLE_include_directive : require
// mla_decode with cooperative matrices: one workgroup = ROWS heads (x) of one split of 1,024 keys (y) of
// one token (z), pages of 64 keys at a time (lib/attention_coopmat.glsl). Results and partials are
// mla_decode.comp's. Wants full subgroups of the size that the host chose.
#include "lib/coopmat.glsl"
#include "layout/kv_page.h"
#include "layout/mla_decode.h"

layout(constant_id = kMlaDecodeSpecFormat) const uint FORMAT = kKvFormatF32;
layout(constant_id = kMlaDecodeSpecOutBf16) const uint OUT_BF16 = 0;
const uint KEY_BF16 = FORMAT == kKvFormatBf16 ? 1 : 0;
const uint KEY_FP8 = FORMAT == kKvFormatFp8 ? 1 : 0;
const bool VALUES_ARE_KEYS = true;

layout(push_constant, scalar) uniform Push { MlaDecodePush pc; };

#include "lib/attention_result.glsl"
#include "lib/mla_decode_rows.glsl"
#include "lib/attention_coopmat.glsl"

void main() {
  uint token = gl_WorkGroupID.z, split = gl_WorkGroupID.y;
  bool partial = pc.partial_ml != 0;
  uint kv_len = token_keys(token);
  uint begin = split * kMlaDecodeSplitKeys;
  uint end = min(begin + kMlaDecodeSplitKeys, kv_len);
  if (partial && begin >= end) return;

  begin_token(token, gl_WorkGroupID.x * ROWS);
  Accumulator row_of, o[MATS];
  [[unroll]] for (uint i = 0; i < MATS; i++) o[i] = Accumulator(0.0);
  attention_begin(pc.rank + pc.rope, row_of);
  uint64_t table = token_table(token);
  uint row_bytes = pc.row_stride * kv_stride_unit(FORMAT);
  [[dont_unroll]] for (uint block = begin; block < end; block += kKvPageTokens) {
    block_keys = min(end - block, kKvPageTokens);
    uint64_t row = uint64_t(UintIn(table + uint64_t(block / kKvPageTokens) * 4).v) * kKvPageTokens;
    // A page past the cache makes the row NaN; the first page stands for it.
    bool inside = row + block_keys <= pc.cache_rows;
    AttentionKeys keys;
    keys.a = pc.cache + (inside ? row : uint64_t(0)) * row_bytes;
    keys.b = keys.a + kv_key_offset(FORMAT, pc.rank);
    keys.scales = keys.a + kv_fp8_scales_offset(pc.rank);
    keys.value = keys.a;
    keys.a_stride = keys.b_stride = keys.value_stride = row_bytes;
    attention_block(keys, pc.rank, pc.rope, pc.rank, block_keys, inside, pc.scale, row_of, o);
  }

  barrier();
  uint64_t first = (uint64_t(token) * gl_NumWorkGroups.y + split) * heads();
  for (uint r = gl_LocalInvocationIndex; r < ROWS && head_begin + r < heads(); r += INVOCATIONS) {
    uint head = head_begin + r;
    if (partial) {
      FloatOut(pc.partial_ml + (first + head) * 8).v = m_sh[r];
      FloatOut(pc.partial_ml + (first + head) * 8 + 4).v = l_sh[r];
    } else if (pc.lse != 0) {
      FloatOut(pc.lse + (uint64_t(token) * heads() + head) * 4).v = attention_lse(m_sh[r], l_sh[r]);
    }
  }
  uint64_t result = uint64_t(token) * pc.o_row_stride;
  ATTENTION_FOR_EACH(o, row, c, value, {
    uint head = head_begin + row;
    if (head < heads() && c < pc.rank) {
      if (partial) {
        FloatOut(pc.partial_o + ((first + head) * pc.rank + c) * 4).v = value;
      } else {
        attention_store_one(OUT_BF16 != 0, pc.o, result + uint64_t(head) * pc.o_head_stride + c,
                            attention_normalise(vec2(value), l_sh[row]).x);
      }
    }
  });
}
