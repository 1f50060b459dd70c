#version 460
#extension GL_GOOGLE_include_directive : require
// mla_prefill through shared memory: one workgroup = one head (x) and ROWS consecutive queries (y) of a
// sequence (z), 64 keys at a time (lib/attention_shared.glsl). Operands, state and bits are
// mla_prefill.comp's.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_prefill.h"

layout(constant_id = kMlaPrefillSpecBatch) const uint BATCH = 0;
const uint KEY_BF16 = 0, KEY_FP8 = 0;

layout(push_constant, scalar) uniform Push { MlaPrefillPush pc; };

#include "lib/attention_result.glsl"
#include "lib/mla_prefill_sequence.glsl"
#include "lib/mla_prefill_rows.glsl"
#include "lib/attention_shared.glsl"

void main() {
  MlaPrefillSequence sequence = mla_prefill_sequence(gl_WorkGroupID.z);
  uint head = gl_WorkGroupID.x, row_begin = gl_WorkGroupID.y * ROWS;
  if (row_begin >= sequence.q_len) return;
  rows = min(ROWS, sequence.q_len - row_begin);
  first_position = sequence.q_begin + row_begin;
  uint64_t first = sequence.q_row + row_begin;
  queries = pc.q + (first * pc.q_row_stride + uint64_t(head) * pc.q_head_stride) * 4;
  uint64_t o_rows = pc.o + (first * pc.o_row_stride + uint64_t(head) * pc.o_head_stride) * 4;
  uint64_t states = pc.state + (first * pc.heads + head) * 8;
  const uint64_t o_stride = uint64_t(pc.o_row_stride) * 4, state_stride = uint64_t(pc.heads) * 8;

  AttentionState state;
  attention_clear(state);
  if ((sequence.flags & kMlaPrefillFlagFirst) == 0) {
    [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
      uint row = min(attention_row(t), rows - 1);
      state.m[t] = FloatIn(states + row * state_stride).v;
      state.l[t] = FloatIn(states + row * state_stride + 4).v;
      [[unroll]] for (uint slice = 0; slice < VALUE_SLICES; slice++) {
        [[unroll]] for (uint i = 0; i < EACH; i++) {
          uint c = min(attention_channel(slice, i), pc.v - 1);
          state.o[(t * VALUE_SLICES + slice) * EACH + i] = FloatIn(o_rows + row * o_stride + c * 4).v;
        }
      }
    }
  }

  uint end = min(sequence.kv_begin + sequence.kv_rows, first_position + rows);
  [[dont_unroll]] for (uint block = sequence.kv_begin; block < end; block += kKvPageTokens) {
    AttentionKeys keys = begin_block(sequence, head, block, end);
    attention_block(keys, pc.nope, pc.rope, pc.v, block_end - block, pc.scale, state);
  }

  bool last = (sequence.flags & kMlaPrefillFlagLast) != 0;
  [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
    uint row = attention_row(t);
    if (row < rows) {
      if (attention_column() == 0 && !last) {
        FloatOut(states + row * state_stride).v = state.m[t];
        FloatOut(states + row * state_stride + 4).v = state.l[t];
      }
      [[unroll]] for (uint slice = 0; slice < VALUE_SLICES; slice++) {
        [[unroll]] for (uint i = 0; i < EACH; i++) {
          uint c = attention_channel(slice, i);
          float value = state.o[(t * VALUE_SLICES + slice) * EACH + i];
          if (last) value = attention_normalise(vec2(value), state.l[t]).x;
          if (c < pc.v) FloatOut(o_rows + row * o_stride + c * 4).v = value;
        }
      }
    }
  }
}
