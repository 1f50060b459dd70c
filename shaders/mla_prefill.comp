#version 460
#extension GL_GOOGLE_include_directive : require
// mla_prefill: causal attention of one sequence over keys expanded from the latent. One workgroup
// = one head (x) and TILE consecutive queries (y) of a sequence (z). It walks the call's keys in blocks of 64 from a
// multiple of 64 up to its last query's position (lib/attention.glsl), carrying the running
// softmax in registers; between calls the state is in memory, exactly.
#include "lib/prelude.glsl"
#include "layout/mla_prefill.h"

layout(constant_id = kMlaPrefillSpecTile) const uint TILE = 4;
layout(constant_id = kMlaPrefillSpecKeys) const uint KEYS = 4;
layout(constant_id = kMlaPrefillSpecPairs) const uint PAIRS = 1;
const uint KEY_BF16 = 0, KEY_FP8 = 0;

#include "lib/attention.glsl"
#include "lib/attention_result.glsl"
layout(constant_id = kMlaPrefillSpecBatch) const uint BATCH = 0;

layout(push_constant, scalar) uniform Push { MlaPrefillPush pc; };

#include "lib/mla_prefill_sequence.glsl"

// Loads (or stores) what an earlier call left (or a later one continues).
void load_state(uint64_t state_row[TILE], uint64_t o_row[TILE], inout AttentionState state) {
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    state.m[t] = FloatIn(state_row[t]).v;
    state.l[t] = FloatIn(state_row[t] + 4).v;
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
      uint pair = min(i * gl_WorkGroupSize.x + gl_LocalInvocationID.x, pc.v / 2 - 1);
      state.o[t][i] =
          vec2(FloatIn(o_row[t] + pair * 8).v, FloatIn(o_row[t] + pair * 8 + 4).v);
    }
  }
}

void store_state(bool last, uint rows, uint64_t state_row[TILE], uint64_t o_row[TILE], AttentionState state) {
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    if (t < rows) {
      if (gl_LocalInvocationID.x == 0 && !last) {
        FloatOut(state_row[t]).v = state.m[t];
        FloatOut(state_row[t] + 4).v = state.l[t];
      }
      [[unroll]] for (uint i = 0; i < PAIRS; i++) {
        uint pair = i * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
        vec2 o = state.o[t][i];
        if (last) o = attention_normalise(o, state.l[t]);
        if (pair < pc.v / 2) {
          FloatOut(o_row[t] + pair * 8).v = o.x;
          FloatOut(o_row[t] + pair * 8 + 4).v = o.y;
        }
      }
    }
  }
}

void main() {
  MlaPrefillSequence sequence = mla_prefill_sequence(gl_WorkGroupID.z);
  uint head = gl_WorkGroupID.x, row_begin = gl_WorkGroupID.y * TILE;
  if (row_begin >= sequence.q_len) return;
  uint rows = min(TILE, sequence.q_len - row_begin);
  uint64_t query_a[TILE], query_b[TILE], state_row[TILE], o_row[TILE];
  uint position[TILE];
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    uint index = row_begin + min(t, rows - 1);  // rows past the end repeat the last and are not stored
    uint row = sequence.q_row + index;
    query_a[t] = pc.q + (uint64_t(row) * pc.q_row_stride + uint64_t(head) * pc.q_head_stride) * 4;
    query_b[t] = query_a[t] + pc.nope * 4;
    state_row[t] = pc.state + (uint64_t(row) * pc.heads + head) * 8;
    o_row[t] =
        pc.o + (uint64_t(row) * pc.o_row_stride + uint64_t(head) * pc.o_head_stride) * 4;
    position[t] = sequence.q_begin + index;
  }
  AttentionState state;
  attention_clear(state);
  if ((sequence.flags & kMlaPrefillFlagFirst) == 0) load_state(state_row, o_row, state);

  uint end = min(sequence.kv_begin + sequence.kv_rows, sequence.q_begin + row_begin + rows);
  uint kv_width = pc.nope + pc.v;
  [[dont_unroll]] for (uint block = sequence.kv_begin; block < end; block += kKvPageTokens) {
    uint limit[TILE];
    [[unroll]] for (uint t = 0; t < TILE; t++) {
      uint visible = min(end, position[t] + 1);
      limit[t] = min(max(visible, block) - block, kKvPageTokens);
    }
    uint64_t row = sequence.kv_row + (block - sequence.kv_begin);
    AttentionKeys keys;
    keys.a = pc.kv + (row * pc.kv_row_stride + uint64_t(head) * kv_width) * 4;
    keys.b = pc.k_pe + row * pc.k_pe_stride * 4;
    keys.value = keys.a + pc.nope * 4;
    keys.a_stride = keys.value_stride = pc.kv_row_stride * 4;
    keys.b_stride = pc.k_pe_stride * 4;
    attention_block(query_a, query_b, keys, pc.nope, pc.rope, pc.v / 2, limit, pc.scale, state);
  }
  store_state((sequence.flags & kMlaPrefillFlagLast) != 0, rows, state_row, o_row, state);
}
