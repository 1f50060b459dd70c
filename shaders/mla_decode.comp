#version 460
#extension GL_GOOGLE_include_directive : require
// mla_decode: absorbed attention over the paged cache; every head shares a token's latents. One
// workgroup = TILE heads (x) of one split of 1,024 keys (y) of one token (z). It walks the split's
// blocks of 64 keys, which are pages (lib/attention.glsl), with the running softmax in registers.
// With one split it writes the result; with several, unnormalised partials that
// mla_decode_combine.comp folds. A split past the token's end ends at once.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_decode.h"

layout(constant_id = kMlaDecodeSpecTile) const uint TILE = 4;
layout(constant_id = kMlaDecodeSpecKeys) const uint KEYS = 4;
layout(constant_id = kMlaDecodeSpecPairs) const uint PAIRS = 1;
layout(constant_id = kMlaDecodeSpecFormat) const uint FORMAT = kKvFormatF32;
layout(constant_id = kMlaDecodeSpecOutBf16) const uint OUT_BF16 = 0;
const uint KEY_BF16 = FORMAT == kKvFormatBf16 ? 1 : 0;
const uint KEY_FP8 = FORMAT == kKvFormatFp8 ? 1 : 0;

#include "lib/attention.glsl"
#include "lib/attention_result.glsl"

layout(push_constant, scalar) uniform Push { MlaDecodePush pc; };

#include "lib/mla_decode_token.glsl"

void store(uint64_t row, uint pair, vec2 o) {
  FloatOut(row + pair * 8).v = o.x;
  FloatOut(row + pair * 8 + 4).v = o.y;
}

void main() {
  uint token = gl_WorkGroupID.z, split = gl_WorkGroupID.y, head_begin = gl_WorkGroupID.x * TILE;
  bool partial = pc.partial_ml != 0;
  uint kv_len = token_keys(token);
  uint begin = split * kMlaDecodeSplitKeys;
  uint end = min(begin + kMlaDecodeSplitKeys, kv_len);
  if (partial && begin >= end) return;

  uint64_t query_a[TILE], query_b[TILE];
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    uint head = min(head_begin + t, heads() - 1);  // repeated past the end, and not stored
    query_a[t] = pc.q_latent + (uint64_t(token) * pc.q_latent_row_stride +
                                uint64_t(head) * pc.q_latent_head_stride) * 4;
    query_b[t] = pc.q_pe + (uint64_t(token) * pc.q_pe_row_stride +
                            uint64_t(head) * pc.q_pe_head_stride) * 4;
  }
  AttentionState state;
  attention_clear(state);
  uint64_t table = token_table(token);
  uint row_bytes = pc.row_stride * kv_stride_unit(FORMAT);
  [[dont_unroll]] for (uint block = begin; block < end; block += kKvPageTokens) {
    uint seen = min(end - block, kKvPageTokens), limit[TILE];
    [[unroll]] for (uint t = 0; t < TILE; t++) limit[t] = seen;
    // A CPU driver loads for a turn without an invocation, too: inside the table.
    uint page = min(block, max(end, 1) - 1) / kKvPageTokens;
    uint64_t row = uint64_t(UintIn(table + uint64_t(page) * 4).v) * kKvPageTokens;
    // A page past the cache makes the row NaN; the first page is read instead.
    bool inside = row + seen <= pc.cache_rows;
    AttentionKeys keys;
    keys.a = pc.cache + (inside ? row : uint64_t(0)) * row_bytes;
    keys.b = keys.a + kv_key_offset(FORMAT, pc.rank);
    keys.scales = keys.a + kv_fp8_scales_offset(pc.rank);
    keys.value = keys.a;
    keys.a_stride = keys.b_stride = keys.value_stride = row_bytes;
    float scale = inside ? pc.scale : uintBitsToFloat(0x7fc00000u);
    attention_block(query_a, query_b, keys, pc.rank, pc.rope, pc.rank / 2, limit, scale, state);
  }

  [[unroll]] for (uint t = 0; t < TILE; t++) {
    uint head = head_begin + t;
    if (head < heads()) {
      uint64_t index = (uint64_t(token) * gl_NumWorkGroups.y + split) * heads() + head;
      uint64_t result = uint64_t(token) * pc.o_row_stride + uint64_t(head) * pc.o_head_stride;
      if (gl_LocalInvocationID.x == 0) {
        if (partial) {
          FloatOut(pc.partial_ml + index * 8).v = state.m[t];
          FloatOut(pc.partial_ml + index * 8 + 4).v = state.l[t];
        } else if (pc.lse != 0) {
          FloatOut(pc.lse + (uint64_t(token) * heads() + head) * 4).v =
              attention_lse(state.m[t], state.l[t]);
        }
      }
      [[unroll]] for (uint i = 0; i < PAIRS; i++) {
        uint pair = i * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
        if (pair < pc.rank / 2) {
          if (partial) {
            store(pc.partial_o + index * pc.rank * 4, pair, state.o[t][i]);
          } else {
            attention_store(OUT_BF16 != 0, pc.o, result + pair * 2, attention_normalise(state.o[t][i], state.l[t]));
          }
        }
      }
    }
  }
}
