// One block of 64 keys of an attention row tile, with the running softmax. Needs before the
// include: TILE (rows: queries or heads), KEYS (keys per invocation: 64 / workgroup size), PAIRS
// (pairs of value channels per invocation) and what lib/attention_keys.glsl needs.
//
// Phase 1: invocations lie along keys, the rows' queries are uniform; scores end as probabilities
// in shared memory. Phase 2: invocations lie along value channels, probabilities are uniform.
// Every sum has one order, whatever the tile: a score over its channels ascending, l and o over
// the keys ascending, rescaled once per block. So a row's bits depend on its keys' absolute
// positions only, as long as blocks start at multiples of 64. The scales of FP8 rows stay outside the
// inner products: a score is a chain over the groups of 128 channels, each a chain of query * code
// times its scale, and the weight of a code is probability * scale, rounded once. Codes are carried as
// code * 2^-8 and scales as scale * 2^8 (lib/fp8.glsl), which changes no bit but at float's ends.
#include "attention_keys.glsl"
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

float minus_infinity() { return uintBitsToFloat(0xff800000u); }
const uint kMaxSubgroups = 16;  // 64 invocations in subgroups of 4

shared float attention_p[kKvPageTokens * TILE];
shared float attention_max[kMaxSubgroups * TILE];

// Running state: exp(score - m) sums to l and weighs the values to o.
struct AttentionState {
  float m[TILE], l[TILE];
  vec2 o[TILE][PAIRS];
};

void attention_sync() {
  if (gl_NumSubgroups > 1) {
    barrier();
  } else {
    subgroupBarrier();
  }
}

void attention_zero(out float s[TILE][KEYS]) {
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    [[unroll]] for (uint i = 0; i < KEYS; i++) s[t][i] = 0.0;
  }
}

// Continues the chains s by query * key over the channels [begin, end). bf16_key: the second part of
// an FP8 row.
void attention_chain(uint64_t query_row[TILE], uint64_t key_row[KEYS], uint begin, uint end,
                     bool bf16_key, inout float s[TILE][KEYS]) {
  // Tested at its end, at an address that stays inside: a CPU driver runs a turn without an invocation,
  // and loads in branches that are not taken.
  uint d = begin;
  if (begin < end) [[dont_unroll]] do {
    uint at = min(d, end - 4);
    vec4 key[KEYS];
    [[unroll]] for (uint i = 0; i < KEYS; i++) {
      key[i] = bf16_key ? attention_key4_words(key_row[i] + at * 2)
                        : attention_key4(key_row[i] + at * kElementBytes);
    }
    [[unroll]] for (uint t = 0; t < TILE; t++) {
      [[unroll]] for (uint e = 0; e < 4; e++) {
        float q = FloatIn(query_row[t] + (at + e) * 4).v;
        [[unroll]] for (uint i = 0; i < KEYS; i++) s[t][i] = mac(q, key[i][e], s[t][i]);
      }
    }
    d += 4;
  } while (d < end);
}

// Scores of this invocation's keys i * size + id, unscaled; keys from `last` on repeat the last
// one.
void attention_scores(uint64_t query_a[TILE], uint64_t query_b[TILE], AttentionKeys keys,
                      uint dims_a, uint dims_b, uint last, out float s[TILE][KEYS]) {
  attention_zero(s);
  [[dont_unroll]] for (uint part = 0; part < 2; part++) {
    uint64_t key_row[KEYS], query_row[TILE];
    [[unroll]] for (uint i = 0; i < KEYS; i++) {
      uint key = min(i * gl_WorkGroupSize.x + gl_LocalInvocationID.x, last - 1);
      key_row[i] = part == 0 ? keys.a + key * keys.a_stride : keys.b + key * keys.b_stride;
    }
    [[unroll]] for (uint t = 0; t < TILE; t++) query_row[t] = part == 0 ? query_a[t] : query_b[t];
    attention_chain(query_row, key_row, 0, part == 0 ? dims_a : dims_b, false, s);
  }
}

// The same of FP8 rows.
void attention_fp8_scores(uint64_t query_a[TILE], uint64_t query_b[TILE], AttentionKeys keys,
                          uint dims_a, uint dims_b, uint last, out float s[TILE][KEYS]) {
  attention_zero(s);
  uint64_t code_row[KEYS], scale_row[KEYS], key_row[KEYS];
  [[unroll]] for (uint i = 0; i < KEYS; i++) {
    uint key = min(i * gl_WorkGroupSize.x + gl_LocalInvocationID.x, last - 1);
    code_row[i] = keys.a + key * keys.a_stride;
    scale_row[i] = keys.scales + key * keys.a_stride;
    key_row[i] = keys.b + key * keys.b_stride;
  }
  [[dont_unroll]] for (uint group = 0; group < dims_a; group += kFp8Block) {
    float sum[TILE][KEYS];
    attention_zero(sum);
    attention_chain(query_a, code_row, group, min(group + kFp8Block, dims_a), false, sum);
    [[unroll]] for (uint i = 0; i < KEYS; i++) {
      float scale = FloatIn(scale_row[i] + group / kFp8Block * 4).v * 256.0;
      [[unroll]] for (uint t = 0; t < TILE; t++) s[t][i] = mac(sum[t][i], scale, s[t][i]);
    }
  }
  attention_chain(query_b, key_row, 0, dims_b, true, s);
}

// Scores to probabilities in shared memory: row t sees the first limit[t] keys. m becomes the
// running maximum, alpha what the sums so far are to be multiplied by. A row that sees nothing is
// left as it is.
void attention_softmax(float s[TILE][KEYS], uint limit[TILE], float scale, inout float m[TILE],
                       out float alpha[TILE]) {
  float top[TILE];
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    top[t] = minus_infinity();
    [[unroll]] for (uint i = 0; i < KEYS; i++) {
      uint key = i * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
      precise float scaled = s[t][i] * scale;
      s[t][i] = scaled;
      top[t] = max(top[t], key < limit[t] ? scaled : minus_infinity());
    }
    top[t] = subgroupMax(top[t]);
  }
  if (gl_NumSubgroups > 1) {
    if (subgroupElect()) {
      [[unroll]] for (uint t = 0; t < TILE; t++) attention_max[gl_SubgroupID * TILE + t] = top[t];
    }
    barrier();
    for (uint i = 0; i < gl_NumSubgroups; i++) {
      [[unroll]] for (uint t = 0; t < TILE; t++) top[t] = max(top[t], attention_max[i * TILE + t]);
    }
  } else {
    subgroupBarrier();  // the previous block's probabilities have been read
  }
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    float m_new = max(m[t], top[t]);
    alpha[t] = m_new == m[t] ? 1.0 : m[t] == minus_infinity() ? 0.0 : exp(m[t] - m_new);
    m[t] = m_new;
    [[unroll]] for (uint i = 0; i < KEYS; i++) {
      uint key = i * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
      float x = s[t][i] - m_new;
      // A NaN score makes its row NaN; max() and some drivers' exp() would lose it.
      float p = x <= 0.0 ? exp(x) : uintBitsToFloat(0x7fc00000u);
      attention_p[key * TILE + t] = key < limit[t] ? p : 0.0;
    }
  }
  attention_sync();
}

// o += p * value for key j, in the rows that see it; `masked` false: all do.
void attention_accumulate(uint64_t value[PAIRS], AttentionKeys keys, uint pairs, uint j, uint last,
                          bool masked, uint limit[TILE], inout AttentionState state) {
  vec2 v[PAIRS];
  float scale[PAIRS];  // of FP8 rows: the pairs i of a workgroup lie in one group of channels
  [[unroll]] for (uint i = 0; i < PAIRS; i++) {
    v[i] = attention_value2(value[i] + j * keys.value_stride);
    if (KEY_FP8 != 0) {
      uint group = min(i * gl_WorkGroupSize.x, pairs - 1) * 2 / kFp8Block;
      uint row = min(j, max(last, 1) - 1);  // inside, as in attention_chain
      scale[i] = FloatIn(keys.scales + row * keys.value_stride + group * 4).v * 256.0;
    }
  }
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    float p = attention_p[j * TILE + t];
    bool seen = !masked || j < limit[t];
    precise float l = state.l[t] + p;
    state.l[t] = seen ? l : state.l[t];
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
      float weight = p;
      if (KEY_FP8 != 0) {
        precise float scaled = p * scale[i];
        weight = scaled;
      }
      vec2 sum = vec2(mac(weight, v[i].x, state.o[t][i].x), mac(weight, v[i].y, state.o[t][i].y));
      state.o[t][i] = seen ? sum : state.o[t][i];
    }
  }
}

// Folds one block into the state. limit: how many of its 64 keys each row sees; at least one row
// sees one. The value channels are 2 * (i * size + id) of `pairs` pairs; those past the end repeat
// the last.
void attention_block(uint64_t query_a[TILE], uint64_t query_b[TILE], AttentionKeys keys,
                     uint dims_a, uint dims_b, uint pairs, uint limit[TILE], float scale,
                     inout AttentionState state) {
  uint first = limit[0], last = limit[0];
  [[unroll]] for (uint t = 1; t < TILE; t++) {
    first = min(first, limit[t]);
    last = max(last, limit[t]);
  }
  float s[TILE][KEYS], alpha[TILE];
  if (KEY_FP8 != 0) {
    attention_fp8_scores(query_a, query_b, keys, dims_a, dims_b, last, s);
  } else {
    attention_scores(query_a, query_b, keys, dims_a, dims_b, last, s);
  }
  attention_softmax(s, limit, scale, state.m, alpha);
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    precise float l = state.l[t] * alpha[t];
    state.l[t] = l;
    [[unroll]] for (uint i = 0; i < PAIRS; i++) {
      precise vec2 o = state.o[t][i] * alpha[t];
      state.o[t][i] = o;
    }
  }
  uint64_t value[PAIRS];
  [[unroll]] for (uint i = 0; i < PAIRS; i++) {
    uint pair = min(i * gl_WorkGroupSize.x + gl_LocalInvocationID.x, pairs - 1);
    value[i] = keys.value + pair * 2 * kElementBytes;
  }
  // Several keys per turn of the loop: a CPU driver moves every accumulator at the back edge.
  uint j = 0;
  [[dont_unroll]] for (; j + 4 <= first; j += 4) {
    [[unroll]] for (uint k = 0; k < 4; k++) {
      attention_accumulate(value, keys, pairs, j + k, last, false, limit, state);
    }
  }
  [[dont_unroll]] for (; j < last; j++) {
    attention_accumulate(value, keys, pairs, j, last, true, limit, state);
  }
}

void attention_clear(out AttentionState state) {
  [[unroll]] for (uint t = 0; t < TILE; t++) {
    state.m[t] = minus_infinity();
    state.l[t] = 0.0;
    [[unroll]] for (uint i = 0; i < PAIRS; i++) state.o[t][i] = vec2(0.0);
  }
}
