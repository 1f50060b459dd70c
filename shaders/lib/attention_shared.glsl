// Attention of ROWS rows (queries of one head, or heads of one token) over blocks of 64 keys through
// shared memory, for GPUs without matrices. Needs before the include what lib/attention_keys.glsl needs
// and two functions: path_query4(row, c), four channels of a row's query's two parts side by side (0
// past the last row), and path_limit(row), how many of the block's 64 keys a row sees.
//
// Every operation and its order are lib/attention.glsl's, hence the bits. What differs is who does it:
// an invocation has ROW_COUNT rows and 4 keys, or 4 channels of each slice of 64 value channels, and
// takes both operands from shared memory, where slices are staged by neighbours reading neighbours.
#include "../layout/attention_shared.h"
#include "attention_keys.glsl"

layout(constant_id = kAttentionSharedSpecRows) const uint ROWS = 32;
layout(constant_id = kAttentionSharedSpecSlice) const uint SLICE = 32;
layout(constant_id = kAttentionSharedSpecInvocations) const uint INVOCATIONS = 128;
layout(constant_id = kAttentionSharedSpecValueSlices) const uint VALUE_SLICES = 1;

const uint COLUMNS = kAttentionSharedColumns;
const uint VALUE_SLICE = kAttentionSharedValueSlice;
const uint ROW_COUNT = ROWS * COLUMNS / INVOCATIONS;  // of an invocation
const uint EACH = 4;                                  // keys, or channels of a slice, of an invocation
const uint SCORES = ROW_COUNT * EACH;
const uint SUMS = ROW_COUNT * VALUE_SLICES * EACH;
const uint STAGE_ROW = SLICE + 1;

shared float stage_sh[HADAL_ATTENTION_SHARED_STAGE(ROWS, SLICE)];
shared float p_sh[kKvPageTokens * ROWS];

float minus_infinity() { return uintBitsToFloat(0xff800000u); }

// Of an invocation's rows; all invocations of a row hold the same m and l.
struct AttentionState {
  float m[ROW_COUNT], l[ROW_COUNT];
  float o[SUMS];
};

uint attention_column() { return gl_LocalInvocationIndex % COLUMNS; }
uint attention_row(uint t) { return gl_LocalInvocationIndex / COLUMNS * ROW_COUNT + t; }
// The channel of sum `i` of a row.
uint attention_channel(uint slice, uint i) { return slice * VALUE_SLICE + i * COLUMNS + attention_column(); }

void attention_clear(out AttentionState state) {
  [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) state.m[t] = minus_infinity(), state.l[t] = 0.0;
  [[unroll]] for (uint i = 0; i < SUMS; i++) state.o[i] = 0.0;
}

// Continues the chains s by query * key over the channels [begin, end) of a key's part, whose queries
// are query_begin further.
void attention_chain(uint64_t key_rows, uint key_stride, bool bf16_words, uint query_begin, uint begin, uint end,
                     uint last, inout float s[SCORES]) {
  [[dont_unroll]] for (uint c0 = begin; c0 < end; c0 += SLICE) {
    const uint width = min(SLICE, end - c0), pieces = width / 4;
    barrier();
    for (uint p = gl_LocalInvocationIndex; p < (kKvPageTokens + ROWS) * pieces; p += INVOCATIONS) {
      uint row = p / pieces, c = p % pieces * 4;
      vec4 v;
      if (row < kKvPageTokens) {
        uint64_t address = key_rows + min(row, last - 1) * key_stride;
        v = bf16_words ? attention_key4_words(address + (c0 + c) * 2)
                       : attention_key4(address + (c0 + c) * kElementBytes);
      } else {
        v = path_query4(row - kKvPageTokens, query_begin + c0 + c);
      }
      [[unroll]] for (uint e = 0; e < 4; e++) stage_sh[row * STAGE_ROW + c + e] = v[e];
    }
    barrier();
    [[dont_unroll]] for (uint c = 0; c < width; c++) {
      float key[EACH];
      [[unroll]] for (uint i = 0; i < EACH; i++) key[i] = stage_sh[(i * COLUMNS + attention_column()) * STAGE_ROW + c];
      [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
        float q = stage_sh[(kKvPageTokens + attention_row(t)) * STAGE_ROW + c];
        [[unroll]] for (uint i = 0; i < EACH; i++) s[t * EACH + i] = mac(q, key[i], s[t * EACH + i]);
      }
    }
  }
}

// Scores of this invocation's rows and keys i * 16 + column, unscaled.
void attention_scores(AttentionKeys keys, uint dims_a, uint dims_b, uint last, out float s[SCORES]) {
  [[unroll]] for (uint i = 0; i < SCORES; i++) s[i] = 0.0;
  if (KEY_FP8 != 0) {
    [[dont_unroll]] for (uint group = 0; group < dims_a; group += kFp8Block) {
      float sum[SCORES];
      [[unroll]] for (uint i = 0; i < SCORES; i++) sum[i] = 0.0;
      attention_chain(keys.a, keys.a_stride, false, 0, group, min(group + kFp8Block, dims_a), last, sum);
      [[unroll]] for (uint i = 0; i < EACH; i++) {
        uint key = min(i * COLUMNS + attention_column(), last - 1);
        float scale = FloatIn(keys.scales + key * keys.a_stride + group / kFp8Block * 4).v * 256.0;
        [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
          s[t * EACH + i] = mac(sum[t * EACH + i], scale, s[t * EACH + i]);
        }
      }
    }
  } else {
    attention_chain(keys.a, keys.a_stride, false, 0, 0, dims_a, last, s);
  }
  attention_chain(keys.b, keys.b_stride, KEY_FP8 != 0, dims_a, 0, dims_b, last, s);
}

// Scores to probabilities in shared memory; m and what l and o so far are to be multiplied by.
void attention_softmax(float s[SCORES], float scale, inout float m[ROW_COUNT], out float alpha[ROW_COUNT]) {
  barrier();  // the previous block's probabilities have been read
  [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
    [[unroll]] for (uint i = 0; i < EACH; i++) {
      precise float x = s[t * EACH + i] * scale;
      s[t * EACH + i] = x;
      p_sh[(i * COLUMNS + attention_column()) * ROWS + attention_row(t)] = x;
    }
  }
  barrier();
  [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
    uint limit = path_limit(attention_row(t));
    float top = minus_infinity();
    for (uint key = 0; key < limit; key++) top = max(top, p_sh[key * ROWS + attention_row(t)]);
    float m_new = max(m[t], top);
    alpha[t] = m_new == m[t] ? 1.0 : m[t] == minus_infinity() ? 0.0 : exp(m[t] - m_new);
    m[t] = m_new;
  }
  barrier();
  [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
    uint limit = path_limit(attention_row(t));
    [[unroll]] for (uint i = 0; i < EACH; i++) {
      uint key = i * COLUMNS + attention_column();
      float x = s[t * EACH + i] - m[t];
      // A NaN score makes its row NaN; max() and some drivers' exp() would lose it.
      float p = x <= 0.0 ? exp(x) : uintBitsToFloat(0x7fc00000u);
      p_sh[key * ROWS + attention_row(t)] = key < limit ? p : 0.0;
    }
  }
}

// o += p * value over the block's keys; l is summed with the first slice.
void attention_accumulate(AttentionKeys keys, uint values, uint last, inout AttentionState state) {
  [[unroll]] for (uint slice = 0; slice < VALUE_SLICES; slice++) {
    const uint c0 = slice * VALUE_SLICE, scales = kKvPageTokens * VALUE_SLICE;
    barrier();
    for (uint p = gl_LocalInvocationIndex; p < kKvPageTokens * VALUE_SLICE / 2; p += INVOCATIONS) {
      uint key = p / (VALUE_SLICE / 2), c = p % (VALUE_SLICE / 2) * 2;
      vec2 v = vec2(0.0);
      if (key < last && c0 + c < values) {
        v = attention_value2(keys.value + key * keys.value_stride + (c0 + c) * kElementBytes);
      }
      stage_sh[key * VALUE_SLICE + c] = v.x;
      stage_sh[key * VALUE_SLICE + c + 1] = v.y;
    }
    if (KEY_FP8 != 0) {
      uint group = min(c0, values - 1) / kFp8Block;
      for (uint key = gl_LocalInvocationIndex; key < last; key += INVOCATIONS) {
        stage_sh[scales + key] = FloatIn(keys.scales + key * keys.value_stride + group * 4).v * 256.0;
      }
    }
    barrier();
    uint limit[ROW_COUNT];
    [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) limit[t] = path_limit(attention_row(t));
    [[dont_unroll]] for (uint j = 0; j < last; j++) {
      float v[EACH];
      [[unroll]] for (uint i = 0; i < EACH; i++) v[i] = stage_sh[j * VALUE_SLICE + i * COLUMNS + attention_column()];
      [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
        float p = p_sh[j * ROWS + attention_row(t)], weight = p;
        bool seen = j < limit[t];
        if (slice == 0) {
          precise float l = state.l[t] + p;
          state.l[t] = seen ? l : state.l[t];
        }
        if (KEY_FP8 != 0) {
          precise float scaled = p * stage_sh[scales + j];
          weight = scaled;
        }
        [[unroll]] for (uint i = 0; i < EACH; i++) {
          uint at = (t * VALUE_SLICES + slice) * EACH + i;
          state.o[at] = seen ? mac(weight, v[i], state.o[at]) : state.o[at];
        }
      }
    }
  }
}

// Folds one block: keys from `last` on are not read.
void attention_block(AttentionKeys keys, uint dims_a, uint dims_b, uint values, uint last, float scale,
                     inout AttentionState state) {
  float s[SCORES], alpha[ROW_COUNT];
  attention_scores(keys, dims_a, dims_b, last, s);
  attention_softmax(s, scale, state.m, alpha);
  [[unroll]] for (uint t = 0; t < ROW_COUNT; t++) {
    precise float l = state.l[t] * alpha[t];
    state.l[t] = l;
    [[unroll]] for (uint i = 0; i < VALUE_SLICES * EACH; i++) {
      precise float o = state.o[t * VALUE_SLICES * EACH + i] * alpha[t];
      state.o[t * VALUE_SLICES * EACH + i] = o;
    }
  }
  attention_accumulate(keys, values, last, state);
}
