#version 460
#extension GL_GOOGLE_include_directive : require
// moe_gate for CPU drivers: one invocation per token, so that nothing is shared and nothing waits. The
// scores are made anew wherever they are needed; the top_k chosen so far stay sorted in registers (TOP_K is
// a constant). Same choice as moe_gate.comp: largest key, then lowest index.
#include "lib/prelude.glsl"
#include "layout/moe_gate.h"
#include "lib/order_key.glsl"

layout(constant_id = kMoeGateSpecTopK) const uint TOP_K = 8;

layout(push_constant, scalar) uniform Push { MoeGatePush pc; };

bool has(uint flag) { return (pc.flags & flag) != 0; }

bool is_nan(uint bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

// What softmax divides by: its largest logit and the sum of its terms.
struct Softmax {
  uint top;  // order key
  float largest;
  float sum;
};

float softmax_term(uint bits, Softmax s) {
  uint k = order_key(bits);
  if (k == kOrderKeyMinusInfinity) return 0.0;
  return k == s.top ? 1.0 : exp(uintBitsToFloat(bits) - s.largest);
}

Softmax softmax_of(uint64_t row) {
  Softmax s = Softmax(kOrderKeyMinusInfinity, 0.0, 1.0);
  if (!has(kMoeGateFlagSoftmax)) return s;
  [[dont_unroll]] for (uint e = 0; e < pc.experts; e++) {
    s.top = max(s.top, order_key(UintIn(row + e * 4).v));
  }
  s.largest = order_key_value(s.top);
  precise float sum = 0.0;
  [[dont_unroll]] for (uint e = 0; e < pc.experts; e++) {
    sum += softmax_term(UintIn(row + e * 4).v, s);
  }
  s.sum = sum;
  return s;
}

float score_of(uint bits, Softmax s) {
  if (has(kMoeGateFlagSoftmax)) return s.sum > 0.0 ? softmax_term(bits, s) / s.sum : 0.0;
  return 1.0 / (1.0 + exp(-uintBitsToFloat(bits)));
}

uint key_of(uint bits, uint e, float score) {
  precise float selection = score;
  // A CPU driver runs a uniform load whether its branch is taken or not: it needs a legal address.
  uint64_t bias = has(kMoeGateFlagBias) ? pc.bias : pc.logits;
  float b = FloatIn(bias + e * 4).v;
  if (has(kMoeGateFlagBias)) selection += b;
  return is_nan(bits) ? kOrderKeyMinusInfinity : order_key(floatBitsToUint(selection));
}

// Bit g: group g is among the best topk_group.
uint64_t best_groups(uint64_t row, Softmax s) {
  if (!has(kMoeGateFlagGroups)) return ~uint64_t(0);
  uint group_key[kMoeGateMaxGroups];
  uint size = pc.experts / max(pc.n_group, 1);
  for (uint g = 0; g < pc.n_group; g++) {
    uint first = kOrderKeyMinusInfinity, second = kOrderKeyMinusInfinity;
    [[dont_unroll]] for (uint e = g * size; e < (g + 1) * size; e++) {
      uint bits = UintIn(row + e * 4).v;
      uint k = key_of(bits, e, score_of(bits, s));
      second = max(second, min(first, k));
      first = max(first, k);
    }
    if (has(kMoeGateFlagGroupTop2)) {
      precise float sum = order_key_value(first) + order_key_value(second);
      first = order_key(floatBitsToUint(sum));
    }
    group_key[g] = first;
  }
  uint64_t kept = uint64_t(0);
  for (uint g = 0; g < pc.n_group; g++) {
    uint mine = group_key[g], rank = 0;
    for (uint other = 0; other < pc.n_group; other++) {
      uint k = group_key[other];
      rank += uint(k > mine || (k == mine && other < g));
    }
    if (rank < pc.topk_group) kept |= uint64_t(1) << g;
  }
  return kept;
}

void main() {
  uint token = gl_GlobalInvocationID.x;
  if (token >= pc.tokens) return;
  uint64_t row = pc.logits + uint64_t(token) * pc.logits_stride * 4;
  Softmax s = softmax_of(row);
  uint64_t kept = best_groups(row, s);

  uint key[TOP_K], expert[TOP_K];
  float score[TOP_K];
  [[unroll]] for (uint i = 0; i < TOP_K; i++) key[i] = 0, expert[i] = 0, score[i] = 0.0;
  // Without groups n_group may be anything; the maximum keeps a masked-off division from trapping.
  uint size = has(kMoeGateFlagGroups) ? pc.experts / max(pc.n_group, 1) : pc.experts;
  [[dont_unroll]] for (uint e = 0; e < pc.experts; e++) {
    uint bits = UintIn(row + e * 4).v;
    float new_score = score_of(bits, s);
    uint new_key = key_of(bits, e, new_score), new_expert = e;
    if (((kept >> (e / max(size, 1))) & uint64_t(1)) == 0) new_key = kOrderKeyMinusInfinity;
    // Equal keys stay behind those that came first: the lowest index wins. From the place found on all
    // move down by one.
    bool before = false;
    [[unroll]] for (uint i = 0; i < TOP_K; i++) {
      before = before || new_key > key[i];
      uint old_key = key[i], old_expert = expert[i];
      float old_score = score[i];
      key[i] = before ? new_key : old_key, new_key = before ? old_key : new_key;
      expert[i] = before ? new_expert : old_expert, new_expert = before ? old_expert : new_expert;
      score[i] = before ? new_score : old_score, new_score = before ? old_score : new_score;
    }
  }
  precise float sum = 0.0;
  // Nothing above -infinity: the lowest unused experts fill up, with weight 0.
  [[unroll]] for (uint i = 0; i < TOP_K; i++) {
    if (key[i] <= kOrderKeyMinusInfinity) score[i] = 0.0;
    sum += score[i];
  }
  [[unroll]] for (uint i = 0; i < TOP_K; i++) {
    uint64_t index = uint64_t(token) * TOP_K + i;
    float w = score[i];
    if (has(kMoeGateFlagNorm)) w = w / (sum + 1e-20);
    UintOut(pc.indices + index * 4).v = expert[i];
    FloatOut(pc.weights + index * 4).v = w * pc.scaling;
  }
}
