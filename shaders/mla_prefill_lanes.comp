#version 460
#extension GL_GOOGLE_include_directive : require
// mla_prefill with invocations along queries, for drivers whose invocations are lanes of a CPU's vector:
// keys and values are uniform, so that they are scalar loads folded into the arithmetic, and neither
// gathers, shared memory, barriers nor reductions remain inside the loops. One workgroup = one head (x)
// and as many consecutive queries (y) as it has invocations; each holds its whole query and result row,
// whose sizes are therefore specialisation constants. Every operation and its order are mla_prefill.comp's
// (lib/attention.glsl): blocks of 64 keys, a score over its channels ascending, l and o over the keys
// ascending, one rescaling per block. So are the bits.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_prefill.h"
#include "lib/attention_result.glsl"

layout(constant_id = kMlaPrefillSpecNope) const uint NOPE = 32;
layout(constant_id = kMlaPrefillSpecRope) const uint ROPE = 32;
layout(constant_id = kMlaPrefillSpecV) const uint V = 32;
const uint HEAD = NOPE + ROPE;
const uint TURN = 8;  // keys per turn of a loop; divides 64
// Channels per basic block. Each stands in a branch that is always taken: in one block of a thousand
// products LLVM computes them all first and spills them (mla_prefill.md).
const uint STEP = 16;

layout(push_constant, scalar) uniform Push { MlaPrefillPush pc; };

float minus_infinity() { return uintBitsToFloat(0xff800000u); }

// Lane-varying floats, two per load: a CPU driver gathers per element.
void load_query(uint64_t row, out float q[HEAD]) {
  [[unroll]] for (uint d = 0; d < HEAD; d += 2) {
    uint64_t w = U64In(row + d * 4).v;
    q[d] = uintBitsToFloat(uint(w));
    q[d + 1] = uintBitsToFloat(uint(w >> 32));
  }
}

// The scores of a block wait in registers for its maximum; a loop reaches them by rotation, because an
// index that is no constant would put them into memory. `count` keys leave at the front.
void rotate(inout float s[kKvPageTokens], float back[TURN]) {
  [[unroll]] for (uint i = 0; i < kKvPageTokens - TURN; i++) s[i] = s[i + TURN];
  [[unroll]] for (uint i = 0; i < TURN; i++) s[kKvPageTokens - TURN + i] = back[i];
}

// Unscaled scores of keys first .. first + TURN of a block; keys from `last` on repeat the last one.
void scores(float q[HEAD], uint64_t nope_row, uint64_t rope_row, uint nope_stride,
            uint rope_stride, uint first, uint last, out float s[TURN]) {
  uint64_t nope[TURN], rope[TURN];
  [[unroll]] for (uint i = 0; i < TURN; i++) {
    uint key = min(first + i, last - 1);
    nope[i] = nope_row + key * nope_stride;
    rope[i] = rope_row + key * rope_stride;
    s[i] = 0.0;
  }
  [[unroll]] for (uint c = 0; c < NOPE; c += STEP) {
    if (c < pc.nope) {
      [[unroll]] for (uint d = c; d < min(c + STEP, NOPE); d++) {
        [[unroll]] for (uint i = 0; i < TURN; i++) s[i] = mac(q[d], FloatIn(nope[i] + d * 4).v, s[i]);
      }
    }
  }
  [[unroll]] for (uint c = 0; c < ROPE; c += STEP) {
    if (c < pc.rope) {
      [[unroll]] for (uint d = c; d < min(c + STEP, ROPE); d++) {
        [[unroll]] for (uint i = 0; i < TURN; i++) {
          s[i] = mac(q[NOPE + d], FloatIn(rope[i] + d * 4).v, s[i]);
        }
      }
    }
  }
}

// A NaN score makes its row NaN; max() and some drivers' exp() would lose it.
float probability(float score, float m) {
  float x = score - m;
  return x <= 0.0 ? exp(x) : uintBitsToFloat(0x7fc00000u);
}

void main() {
  uint head = gl_WorkGroupID.x, row_begin = gl_WorkGroupID.y * gl_WorkGroupSize.x;
  uint rows = min(gl_WorkGroupSize.x, pc.q_len - row_begin);
  // Rows past the end repeat the last and are not stored.
  uint row = row_begin + min(gl_LocalInvocationID.x, rows - 1);
  uint64_t state_row = pc.state + (uint64_t(row) * pc.heads + head) * 8;
  uint64_t o_row = pc.o + (uint64_t(row) * pc.o_row_stride + uint64_t(head) * pc.o_head_stride) * 4;
  float q[HEAD], o[V], m = minus_infinity(), l = 0.0;
  load_query(pc.q + (uint64_t(row) * pc.q_row_stride + uint64_t(head) * pc.q_head_stride) * 4, q);
  [[unroll]] for (uint c = 0; c < V; c++) o[c] = 0.0;
  if ((pc.flags & kMlaPrefillFlagFirst) == 0) {
    m = FloatIn(state_row).v;
    l = FloatIn(state_row + 4).v;
    [[unroll]] for (uint c = 0; c < V; c++) o[c] = FloatIn(o_row + c * 4).v;
  }

  uint kv_end = pc.kv_begin + pc.kv_rows;
  uint shortest = min(kv_end, pc.q_begin + row_begin + 1);   // keys that every row sees end here
  uint longest = min(kv_end, pc.q_begin + row_begin + rows);  // and those that any row sees, here
  uint visible = min(kv_end, pc.q_begin + row + 1);
  uint nope_stride = pc.kv_row_stride * 4, rope_stride = pc.k_pe_stride * 4;
  [[dont_unroll]] for (uint block = pc.kv_begin; block < longest; block += kKvPageTokens) {
    uint first = min(max(shortest, block) - block, kKvPageTokens);
    uint last = min(longest - block, kKvPageTokens);
    uint limit = min(max(visible, block) - block, kKvPageTokens);
    uint64_t key_row = pc.kv + (uint64_t(block - pc.kv_begin) * pc.kv_row_stride +
                                uint64_t(head) * (NOPE + V)) * 4;
    uint64_t rope_row = pc.k_pe + uint64_t(block - pc.kv_begin) * pc.k_pe_stride * 4;
    uint64_t value_row = key_row + NOPE * 4;

    float s[kKvPageTokens], top = minus_infinity();
    [[unroll]] for (uint i = 0; i < kKvPageTokens; i++) s[i] = 0.0;
    [[dont_unroll]] for (uint j = 0; j < kKvPageTokens; j += TURN) {
      float turn[TURN];
      [[unroll]] for (uint i = 0; i < TURN; i++) turn[i] = 0.0;
      if (j < last) {
        scores(q, key_row, rope_row, nope_stride, rope_stride, j, last, turn);
        [[unroll]] for (uint i = 0; i < TURN; i++) {
          precise float scaled = turn[i] * pc.scale;
          turn[i] = scaled;
          top = max(top, j + i < limit ? scaled : minus_infinity());
        }
      }
      rotate(s, turn);
    }

    float m_new = max(m, top);
    float alpha = m_new == m ? 1.0 : m == minus_infinity() ? 0.0 : exp(m - m_new);
    m = m_new;
    precise float rescaled = l * alpha;
    l = rescaled;
    [[unroll]] for (uint c = 0; c < V; c++) {
      precise float scaled = o[c] * alpha;
      o[c] = scaled;
    }

    uint j = 0;
    [[dont_unroll]] for (; j + TURN <= first; j += TURN) {
      float p[TURN];
      [[unroll]] for (uint i = 0; i < TURN; i++) {
        p[i] = probability(s[i], m);
        precise float sum = l + p[i];
        l = sum;
      }
      [[unroll]] for (uint c = 0; c < V; c += STEP) {
        if (c < pc.v) {
          [[unroll]] for (uint i = 0; i < TURN; i++) {
            uint64_t value = value_row + (j + i) * nope_stride;
            [[unroll]] for (uint d = c; d < min(c + STEP, V); d++) {
              o[d] = mac(p[i], FloatIn(value + d * 4).v, o[d]);
            }
          }
        }
      }
      float none[TURN];
      [[unroll]] for (uint i = 0; i < TURN; i++) none[i] = 0.0;
      rotate(s, none);
    }
    // Keys that only some rows see are accumulated under a select: 0 * NaN must not reach the others.
    [[dont_unroll]] for (; j < last; j++) {
      uint64_t value = value_row + j * nope_stride;
      bool seen = j < limit;
      float p = probability(s[0], m);
      precise float sum = l + p;
      l = seen ? sum : l;
      [[unroll]] for (uint c = 0; c < V; c++) {
        float next = mac(p, FloatIn(value + c * 4).v, o[c]);
        o[c] = seen ? next : o[c];
      }
      [[unroll]] for (uint i = 0; i + 1 < kKvPageTokens; i++) s[i] = s[i + 1];
    }
  }

  if (gl_LocalInvocationID.x >= rows) return;
  bool done = (pc.flags & kMlaPrefillFlagLast) != 0;
  if (!done) {
    FloatOut(state_row).v = m;
    FloatOut(state_row + 4).v = l;
  }
  [[unroll]] for (uint c = 0; c < V; c += 2) {
    vec2 pair = vec2(o[c], o[c + 1]);
    if (done) pair = attention_normalise(pair, l);
    FloatOut(o_row + c * 4).v = pair.x;
    FloatOut(o_row + c * 4 + 4).v = pair.y;
  }
}
