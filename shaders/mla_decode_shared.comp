#version 460
#extension GL_GOOGLE_include_directive : require
// mla_decode through shared memory: one workgroup = ROWS heads (x) of one split of 1,024 keys (y) of one
// token (z), pages of 64 keys at a time (lib/attention_shared.glsl). Results, partials and bits are
// mla_decode.comp's.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_decode.h"

layout(constant_id = kMlaDecodeSpecFormat) const uint FORMAT = kKvFormatF32;
layout(constant_id = kMlaDecodeSpecOutBf16) const uint OUT_BF16 = 0;
const uint KEY_BF16 = FORMAT == kKvFormatBf16 ? 1 : 0;
const uint KEY_FP8 = FORMAT == kKvFormatFp8 ? 1 : 0;

layout(push_constant, scalar) uniform Push { MlaDecodePush pc; };

#include "lib/attention_result.glsl"
#include "lib/mla_decode_rows.glsl"
#include "lib/attention_shared.glsl"

void main() {
  uint token = gl_WorkGroupID.z, split = gl_WorkGroupID.y;
  bool partial = pc.partial_ml != 0;
  uint kv_len = token_keys(token);
  uint begin = split * kMlaDecodeSplitKeys;
  uint end = min(begin + kMlaDecodeSplitKeys, kv_len);
  if (partial && begin >= end) return;

  begin_token(token, gl_WorkGroupID.x * ROWS);
  AttentionState state;
  attention_clear(state);
  uint64_t table = token_table(token);
  uint row_bytes = pc.row_stride * kv_stride_unit(FORMAT);
  [[dont_unroll]] for (uint block = begin; block < end; block += kKvPageTokens) {
    block_keys = min(end - block, kKvPageTokens);
    uint64_t row = uint64_t(UintIn(table + uint64_t(block / kKvPageTokens) * 4).v) * kKvPageTokens;
    // A page past the cache makes the row NaN; the first page is read instead.
    bool inside = row + block_keys <= pc.cache_rows;
    AttentionKeys keys;
    keys.a = pc.cache + (inside ? row : uint64_t(0)) * row_bytes;
    keys.b = keys.a + kv_key_offset(FORMAT, pc.rank);
    keys.scales = keys.a + kv_fp8_scales_offset(pc.rank);
    keys.value = keys.a;
    keys.a_stride = keys.b_stride = keys.value_stride = row_bytes;
    float scale = inside ? pc.scale : uintBitsToFloat(0x7fc00000u);
    attention_block(keys, pc.rank, pc.rope, pc.rank, block_keys, scale, state);
  }

  [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
    uint head = head_begin + attention_row(t);
    if (head < heads()) {
      uint64_t index = (uint64_t(token) * gl_NumWorkGroups.y + split) * heads() + head;
      if (attention_column() == 0) {
        if (partial) {
          FloatOut(pc.partial_ml + index * 8).v = state.m[t];
          FloatOut(pc.partial_ml + index * 8 + 4).v = state.l[t];
        } else if (pc.lse != 0) {
          FloatOut(pc.lse + (uint64_t(token) * heads() + head) * 4).v = attention_lse(state.m[t], state.l[t]);
        }
      }
      uint64_t result = uint64_t(token) * pc.o_row_stride + uint64_t(head) * pc.o_head_stride;
      [[unroll]] for (uint slice = 0; slice < VALUE_SLICES; slice++) {
        [[unroll]] for (uint i = 0; i < EACH; i++) {
          uint c = attention_channel(slice, i);
          float value = state.o[(t * VALUE_SLICES + slice) * EACH + i];
          if (c < pc.rank) {
            if (partial) {
              FloatOut(pc.partial_o + (index * pc.rank + c) * 4).v = value;
            } else {
              attention_store_one(OUT_BF16 != 0, pc.o, result + c, attention_normalise(vec2(value), state.l[t]).x);
            }
          }
        }
      }
    }
  }
}
