#version 460
#extension GL_GOOGLE_include_directive : require
// mla_prefill with cooperative matrices: one workgroup = one head (x) and ROWS consecutive queries (y) of
// a sequence (z), 64 keys at a time (lib/attention_coopmat.glsl). Operands and state are
// mla_prefill.comp's. Wants full subgroups of the size that the host chose.
#include "lib/coopmat.glsl"
#include "layout/kv_page.h"
#include "layout/mla_prefill.h"

layout(constant_id = kMlaPrefillSpecBatch) const uint BATCH = 0;
const uint KEY_BF16 = 0, KEY_FP8 = 0;
const bool VALUES_ARE_KEYS = false;

layout(push_constant, scalar) uniform Push { MlaPrefillPush pc; };

#include "lib/attention_result.glsl"
#include "lib/mla_prefill_sequence.glsl"
#include "lib/mla_prefill_rows.glsl"
#include "lib/attention_coopmat.glsl"

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
  const uint id = gl_LocalInvocationIndex;

  Accumulator row_of, o[MATS];
  [[unroll]] for (uint i = 0; i < MATS; i++) o[i] = Accumulator(0.0);
  attention_begin(pc.nope + pc.rope, row_of);
  if ((sequence.flags & kMlaPrefillFlagFirst) == 0) {
    for (uint r = id; r < rows; r += INVOCATIONS) {
      m_sh[r] = FloatIn(states + r * state_stride).v;
      l_sh[r] = FloatIn(states + r * state_stride + 4).v;
    }
    ATTENTION_LOAD(o, row, c, row < rows && c < pc.v ? FloatIn(o_rows + row * o_stride + c * 4).v : 0.0);
  }

  uint end = min(sequence.kv_begin + sequence.kv_rows, first_position + rows);
  [[dont_unroll]] for (uint block = sequence.kv_begin; block < end; block += kKvPageTokens) {
    AttentionKeys keys = begin_block(sequence, head, block, end);
    attention_block(keys, pc.nope, pc.rope, pc.v, block_end - block, true, pc.scale, row_of, o);
  }

  barrier();
  bool last = (sequence.flags & kMlaPrefillFlagLast) != 0;
  if (!last) {
    for (uint r = id; r < rows; r += INVOCATIONS) {
      FloatOut(states + r * state_stride).v = m_sh[r];
      FloatOut(states + r * state_stride + 4).v = l_sh[r];
    }
  }
  ATTENTION_FOR_EACH(o, row, c, value, {
    if (row < rows && c < pc.v) {
      FloatOut(o_rows + row * o_stride + c * 4).v = last ? attention_normalise(vec2(value), l_sh[row]).x : value;
    }
  });
}
