// Attention of ROWS rows (queries of one head, or heads of one token) over blocks of 64 keys with
// cooperative matrices: f16 operands, f32 accumulators, the running softmax in f32. Needs before the
// include what lib/attention_keys.glsl needs, VALUES_ARE_KEYS (a value is the first channels of its key)
// and two functions: path_query4(row, c), four channels of a row's query (0 past the last row), and
// path_limit(row), how many of the block's 64 keys a row sees.
//
// Nothing overflows in f16: a query, a key and a value are staged times the power of two that puts their
// largest magnitude into [2^14, 2^15), and scores take the inverses back in f32. Of the weights
// p * 2^(a value's exponent), where p is in [0, 1], a row's largest in a block is put there too; the
// block's sum of weight * value is folded into o by one mac() with that power of two. What is below
// 2^-28 of its row's largest may be flushed. A query, key or value that is not finite is staged as 0
// and makes every row NaN that sees it: 0 * NaN would reach the others.
//
// Every sum has one order, whatever the tile: a score over its channels ascending, COOP_K at a time;
// l over the keys of a lane, then the subgroup's sum, then over the blocks; o over the keys of a block
// ascending, COOP_K at a time, then over the blocks. So a row's bits depend on its keys' absolute
// positions only, as long as blocks start at multiples of 64.
#include "../layout/attention_coopmat.h"
#include "attention_keys.glsl"
#extension GL_KHR_shader_subgroup_arithmetic : require

layout(constant_id = kAttentionCoopSpecRows) const uint ROWS = 32;
layout(constant_id = kAttentionCoopSpecSlice) const uint SLICE = 64;
layout(constant_id = kAttentionCoopSpecSubgroups) const uint SUBGROUPS = 8;
layout(constant_id = kAttentionCoopSpecSubgroupSize) const uint SUBGROUP_SIZE = 32;
layout(constant_id = kAttentionCoopSpecValueMats) const uint VALUE_MATS = 4;
layout(constant_id = kAttentionCoopSpecCoopM) const uint COOP_M = 16;
layout(constant_id = kAttentionCoopSpecCoopN) const uint COOP_N = 16;
layout(constant_id = kAttentionCoopSpecCoopK) const uint COOP_K = 16;

#define Accumulator coopmat<float, gl_ScopeSubgroup, COOP_M, COOP_N, gl_MatrixUseAccumulator>
#define OperandA coopmat<float16_t, gl_ScopeSubgroup, COOP_M, COOP_K, gl_MatrixUseA>
#define OperandB coopmat<float16_t, gl_ScopeSubgroup, COOP_K, COOP_N, gl_MatrixUseB>

const uint INVOCATIONS = SUBGROUPS * SUBGROUP_SIZE;
const uint VALUE_SLICE = SUBGROUPS * COOP_N;  // a matrix of value channels for each subgroup
const uint MATS_M = ROWS / COOP_M;
const uint MATS = MATS_M * VALUE_MATS;
const uint KEY_MATS = kKvPageTokens / COOP_N;
const uint SCORE_MATS = (MATS_M * KEY_MATS + SUBGROUPS - 1) / SUBGROUPS;  // a subgroup's, of one row of them
const uint LANE_KEYS = (kKvPageTokens + SUBGROUP_SIZE - 1) / SUBGROUP_SIZE;
// Row strides in shared memory: of vectors of four halves, of floats, of halves.
const uint KEY_ROW = HADAL_ATTENTION_COOP_ROW(SLICE) / 4;
const uint VALUE_ROW = HADAL_ATTENTION_COOP_ROW(VALUE_SLICE) / 4;
const uint SCORE_ROW = HADAL_ATTENTION_COOP_SCORE_ROW;
const uint WEIGHT_ROW = HADAL_ATTENTION_COOP_ROW(64);

shared f16vec4 stage_sh[HADAL_ATTENTION_COOP_STAGE(ROWS, SLICE, VALUE_SLICE) / 4];
shared float score_sh[HADAL_ATTENTION_COOP_SCORES(ROWS, SUBGROUPS, COOP_M, COOP_N)];
shared float16_t weight_sh[HADAL_ATTENTION_COOP_WEIGHTS(ROWS)];
shared vec2 fold_sh[ROWS];  // what o and a block's sum are multiplied by
shared float m_sh[ROWS], l_sh[ROWS];
// Bits of the largest magnitude, which order as the numbers do; kNotFinite and more: Inf or NaN.
shared uint query_max_sh[ROWS], key_max_sh[kKvPageTokens], value_max_sh[kKvPageTokens];
const uint kNotFinite = 0x7f800000u;

float minus_infinity() { return uintBitsToFloat(0xff800000u); }

// 2^e, e from -126 to 127; 0 for -127.
float power_of_two(int e) { return uintBitsToFloat(uint(e + 127) << 23); }

// x * 2^e for e from -253 to 254, in two steps; exact where the result is normal.
float scaled(float x, int e) {
  int half_e = e / 2;
  return x * power_of_two(half_e) * power_of_two(e - half_e);
}

// The exponent z of a row by its largest magnitude: row * 2^-z is below 2^15.
int row_exponent(uint largest) { return max(int(largest >> 23) - 141, -126); }

uint largest_of(vec4 v) {
  uvec4 bits = floatBitsToUint(v) & 0x7fffffffu;
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// Staged form of four channels of a row.
f16vec4 staged(vec4 v, uint largest) { return f16vec4(v * power_of_two(-row_exponent(largest))); }

// Channels c to c + 3 of a key's two parts side by side.
vec4 key4(AttentionKeys keys, uint dims_a, uint key, uint c) {
  if (c < dims_a) {
    vec4 v = attention_key4(keys.a + key * keys.a_stride + c * kElementBytes);
    if (KEY_FP8 != 0) v *= FloatIn(keys.scales + key * keys.a_stride + c / kFp8Block * 4).v * 256.0;
    return v;
  }
  uint64_t row = keys.b + key * keys.b_stride;
  return KEY_FP8 != 0 ? attention_key4_words(row + (c - dims_a) * 2)
                      : attention_key4(row + (c - dims_a) * kElementBytes);
}

// Channels c to c + 3 of a value, 0 past the last; `values` is even.
vec4 value4(AttentionKeys keys, uint values, uint key, uint c) {
  if (VALUES_ARE_KEYS) return key4(keys, values, key, c);
  uint64_t address = keys.value + key * keys.value_stride + c * kElementBytes;
  vec4 v = vec4(attention_value2(address), 0.0, 0.0);
  if (c + 2 < values) v.zw = attention_value2(address + 2 * kElementBytes);
  return v;
}

// Once, before the first block; `dims` channels of a query. Also gives the number of its row to each
// element of an accumulator: which invocation holds which is the driver's secret.
void attention_begin(uint dims, out Accumulator row_of) {
  const uint lane = gl_SubgroupInvocationID;
  for (uint row = gl_SubgroupID; row < ROWS; row += SUBGROUPS) {
    uint top = 0;
    for (uint c = lane * 4; c < dims; c += SUBGROUP_SIZE * 4) top = max(top, largest_of(path_query4(row, c)));
    top = subgroupMax(top);
    if (lane == 0) query_max_sh[row] = top;
  }
  for (uint e = gl_LocalInvocationIndex; e < COOP_M * COOP_N; e += INVOCATIONS) score_sh[e] = float(e / COOP_N);
  for (uint row = gl_LocalInvocationIndex; row < ROWS; row += INVOCATIONS) {
    m_sh[row] = minus_infinity();
    l_sh[row] = 0.0;
  }
  barrier();
  coopMatLoad(row_of, score_sh, 0, COOP_N, gl_CooperativeMatrixLayoutRowMajor);
  barrier();
}

// The largest magnitude of each key and value. `readable` false: as if all were NaN.
void attention_scan(AttentionKeys keys, uint dims_a, uint dims_b, uint values, uint last, bool readable) {
  const uint lane = gl_SubgroupInvocationID;
  for (uint key = gl_SubgroupID; key < kKvPageTokens; key += SUBGROUPS) {
    uint key_top = readable ? 0 : kNotFinite, value_top = key_top;
    if (key < last && readable) {
      for (uint c = lane * 4; c < dims_a + dims_b; c += SUBGROUP_SIZE * 4) {
        key_top = max(key_top, largest_of(key4(keys, dims_a, key, c)));
      }
      if (!VALUES_ARE_KEYS) {
        for (uint c = lane * 4; c < values; c += SUBGROUP_SIZE * 4) {
          value_top = max(value_top, largest_of(value4(keys, values, key, c)));
        }
      }
    }
    key_top = subgroupMax(key_top);
    value_top = VALUES_ARE_KEYS ? key_top : subgroupMax(value_top);
    if (lane == 0) key_max_sh[key] = key_top, value_max_sh[key] = value_top;
  }
}

// Inner products of the staged rows and keys, to score_sh.
void attention_scores(AttentionKeys keys, uint dims_a, uint dims_b, uint last) {
  const uint first_mat = gl_SubgroupID * SCORE_MATS;
  const uint row_mat = first_mat / KEY_MATS, key_mat = first_mat % KEY_MATS;
  const bool has_scores = first_mat < MATS_M * KEY_MATS;
  const uint dims = dims_a + dims_b, pieces = SLICE / 4;
  Accumulator s[SCORE_MATS];
  [[unroll]] for (uint i = 0; i < SCORE_MATS; i++) s[i] = Accumulator(0.0);
  [[dont_unroll]] for (uint c0 = 0; c0 < dims; c0 += SLICE) {
    barrier();
    for (uint p = gl_LocalInvocationIndex; p < (kKvPageTokens + ROWS) * pieces; p += INVOCATIONS) {
      uint row = p / pieces, c = c0 + p % pieces * 4;
      f16vec4 v = f16vec4(0.0);
      if (row < kKvPageTokens) {
        uint largest = key_max_sh[row];
        if (row < last && c < dims && largest < kNotFinite) v = staged(key4(keys, dims_a, row, c), largest);
      } else {
        uint largest = query_max_sh[row - kKvPageTokens];
        if (c < dims && largest < kNotFinite) v = staged(path_query4(row - kKvPageTokens, c), largest);
      }
      stage_sh[row * KEY_ROW + p % pieces] = v;
    }
    barrier();
    if (has_scores) {
      for (uint k = 0; k < SLICE / COOP_K; k++) {
        OperandA a;
        coopMatLoad(a, stage_sh, (kKvPageTokens + row_mat * COOP_M) * KEY_ROW + k * COOP_K / 4, KEY_ROW,
                    gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint i = 0; i < SCORE_MATS; i++) {
          OperandB b;
          coopMatLoad(b, stage_sh, (key_mat + i) * COOP_N * KEY_ROW + k * COOP_K / 4, KEY_ROW,
                      gl_CooperativeMatrixLayoutColumnMajor);
          s[i] = coopMatMulAdd(a, b, s[i]);
        }
      }
    }
  }
  if (has_scores) {
    [[unroll]] for (uint i = 0; i < SCORE_MATS; i++) {
      coopMatStore(s[i], score_sh, row_mat * COOP_M * SCORE_ROW + (key_mat + i) * COOP_N, SCORE_ROW,
                   gl_CooperativeMatrixLayoutRowMajor);
    }
  }
  barrier();
}

// Scores to weights, m, l and the factors of this block; a row is one subgroup's.
void attention_softmax(float scale) {
  const uint lane = gl_SubgroupInvocationID;
  [[dont_unroll]] for (uint row = gl_SubgroupID; row < ROWS; row += SUBGROUPS) {
    const uint limit = path_limit(row), query_max = query_max_sh[row];
    const float nan = uintBitsToFloat(0x7fc00000u);
    float s[LANE_KEYS], top = minus_infinity();
    [[unroll]] for (uint i = 0; i < LANE_KEYS; i++) {
      uint key = i * SUBGROUP_SIZE + lane, at = min(key, kKvPageTokens - 1);
      uint key_max = key_max_sh[at];
      bool finite = max(max(query_max, key_max), value_max_sh[at]) < kNotFinite;
      precise float x = scaled(score_sh[row * SCORE_ROW + at], row_exponent(query_max) + row_exponent(key_max)) * scale;
      s[i] = finite ? x : nan;
      top = max(top, key < limit && finite ? x : minus_infinity());
    }
    top = subgroupMax(top);
    float m_old = m_sh[row], m = max(m_old, top);
    float alpha = m == m_old ? 1.0 : m_old == minus_infinity() ? 0.0 : exp(m_old - m);
    float p[LANE_KEYS], sum = 0.0;
    int largest = -1000;
    [[unroll]] for (uint i = 0; i < LANE_KEYS; i++) {
      uint key = i * SUBGROUP_SIZE + lane;
      float x = s[i] - m;
      // A NaN score makes its row NaN; max() and some drivers' exp() would lose it.
      p[i] = key < limit ? (x <= 0.0 ? exp(x) : nan) : 0.0;
      precise float next = sum + p[i];
      sum = next;
      int e = int(floatBitsToUint(p[i]) >> 23);
      if (e != 0) largest = max(largest, e - 127 + row_exponent(value_max_sh[min(key, kKvPageTokens - 1)]));
    }
    sum = subgroupAdd(sum);
    largest = clamp(subgroupMax(largest) - 14, -126, 127);
    [[unroll]] for (uint i = 0; i < LANE_KEYS; i++) {
      uint key = i * SUBGROUP_SIZE + lane;
      if (key < kKvPageTokens) {
        weight_sh[row * WEIGHT_ROW + key] = float16_t(scaled(p[i], row_exponent(value_max_sh[key]) - largest));
      }
    }
    if (lane == 0) {
      precise float l = l_sh[row] * alpha + sum;
      l_sh[row] = l;
      m_sh[row] = m;
      fold_sh[row] = vec2(alpha, power_of_two(largest));
    }
  }
}

// o = o * alpha + the block's weights * values.
void attention_accumulate(AttentionKeys keys, uint values, uint last, Accumulator row_of,
                          inout Accumulator o[MATS]) {
  const uint pieces = VALUE_SLICE / 4;
  [[unroll]] for (uint j = 0; j < VALUE_MATS; j++) {
    const uint c0 = j * VALUE_SLICE;
    barrier();
    for (uint p = gl_LocalInvocationIndex; p < kKvPageTokens * pieces; p += INVOCATIONS) {
      uint key = p / pieces, c = c0 + p % pieces * 4, largest = value_max_sh[key];
      f16vec4 v = f16vec4(0.0);
      if (key < last && c < values && largest < kNotFinite) v = staged(value4(keys, values, key, c), largest);
      stage_sh[key * VALUE_ROW + p % pieces] = v;
    }
    barrier();
    Accumulator t[MATS_M];
    [[unroll]] for (uint i = 0; i < MATS_M; i++) t[i] = Accumulator(0.0);
    for (uint k = 0; k < kKvPageTokens / COOP_K; k++) {
      OperandB b;
      coopMatLoad(b, stage_sh, k * COOP_K * VALUE_ROW + gl_SubgroupID * (COOP_N / 4), VALUE_ROW,
                  gl_CooperativeMatrixLayoutRowMajor);
      [[unroll]] for (uint i = 0; i < MATS_M; i++) {
        OperandA a;
        coopMatLoad(a, weight_sh, i * COOP_M * WEIGHT_ROW + k * COOP_K, WEIGHT_ROW,
                    gl_CooperativeMatrixLayoutRowMajor);
        t[i] = coopMatMulAdd(a, b, t[i]);
      }
    }
    [[unroll]] for (uint i = 0; i < MATS_M; i++) {
      [[unroll]] for (uint e = 0; e < row_of.length(); e++) {
        vec2 fold = fold_sh[i * COOP_M + uint(row_of[e])];
        precise float kept = o[i * VALUE_MATS + j][e] * fold.x;
        o[i * VALUE_MATS + j][e] = mac(t[i][e], fold.y, kept);
      }
    }
  }
}

// Folds one block: keys from `last` on are not read.
void attention_block(AttentionKeys keys, uint dims_a, uint dims_b, uint values, uint last, bool readable,
                     float scale, Accumulator row_of, inout Accumulator o[MATS]) {
  attention_scan(keys, dims_a, dims_b, values, last, readable);
  attention_scores(keys, dims_a, dims_b, last);
  attention_softmax(scale);
  attention_accumulate(keys, values, last, row_of, o);
}

// For all elements (row, c) of o in turn, through shared memory, where an element's row and channel are
// known: `BODY` with `row`, `c` and `value`. A macro, since GLSL has no functions as arguments.
#define ATTENTION_FOR_EACH(o, row, c, value, BODY)                                                        \
  do {                                                                                                    \
    const uint base = gl_SubgroupID * (COOP_M * COOP_N);                                                  \
    barrier();                                                                                            \
    [[unroll]] for (uint j_ = 0; j_ < VALUE_MATS; j_++) {                                                 \
      [[unroll]] for (uint i_ = 0; i_ < MATS_M; i_++) {                                                   \
        coopMatStore(o[i_ * VALUE_MATS + j_], score_sh, base, COOP_N, gl_CooperativeMatrixLayoutRowMajor); \
        barrier();                                                                                        \
        for (uint e_ = gl_SubgroupInvocationID; e_ < COOP_M * COOP_N; e_ += SUBGROUP_SIZE) {              \
          uint row = i_ * COOP_M + e_ / COOP_N;                                                           \
          uint c = j_ * VALUE_SLICE + gl_SubgroupID * COOP_N + e_ % COOP_N;                               \
          float value = score_sh[base + e_];                                                              \
          BODY                                                                                            \
        }                                                                                                 \
        barrier();                                                                                        \
      }                                                                                                   \
    }                                                                                                     \
  } while (false)

// The other way: sets all elements (row, c) of o to VALUE, an expression of `row` and `c`.
#define ATTENTION_LOAD(o, row, c, VALUE)                                                                 \
  do {                                                                                                   \
    const uint base = gl_SubgroupID * (COOP_M * COOP_N);                                                 \
    [[unroll]] for (uint j_ = 0; j_ < VALUE_MATS; j_++) {                                                \
      [[unroll]] for (uint i_ = 0; i_ < MATS_M; i_++) {                                                  \
        barrier();                                                                                       \
        for (uint e_ = gl_SubgroupInvocationID; e_ < COOP_M * COOP_N; e_ += SUBGROUP_SIZE) {             \
          uint row = i_ * COOP_M + e_ / COOP_N;                                                          \
          uint c = j_ * VALUE_SLICE + gl_SubgroupID * COOP_N + e_ % COOP_N;                              \
          score_sh[base + e_] = VALUE;                                                                   \
        }                                                                                                \
        barrier();                                                                                       \
        coopMatLoad(o[i_ * VALUE_MATS + j_], score_sh, base, COOP_N, gl_CooperativeMatrixLayoutRowMajor); \
      }                                                                                                  \
    }                                                                                                    \
    barrier();                                                                                           \
  } while (false)
