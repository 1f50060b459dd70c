#version 460
#extension GL_GOOGLE_include_directive : require
// moe_gate: the top_k experts of a token and their weights. One workgroup = one token; invocation
// i owns the experts i, i + workgroup size, ... Phases: scores, groups, top_k rounds of "largest
// key, then lowest index" over the workgroup, weights. Every choice compares integers
// (lib/order_key.glsl), so it is exact given the scores, NaN included; right at any subgroup size.
#include "lib/prelude.glsl"
#include "layout/moe_gate.h"
#include "lib/order_key.glsl"
#include "lib/reduce.glsl"

layout(push_constant, scalar) uniform Push { MoeGatePush pc; };

shared float score[kMoeGateMaxExperts];  // what weights are made of
shared uint key[kMoeGateMaxExperts];     // what is selected by; 0 once taken
shared uint group_key[kMoeGateMaxGroups];
shared uint group_kept[kMoeGateMaxGroups];
shared uint chosen[kMoeGateMaxTopK];
shared float chosen_score[kMoeGateMaxTopK];

bool has(uint flag) { return (pc.flags & flag) != 0; }

bool is_nan(uint bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

void compute_scores(uint64_t row) {
  float largest = 0.0, scale = 1.0;
  if (has(kMoeGateFlagSoftmax)) {
    uint top = kOrderKeyMinusInfinity;
    for (uint e = gl_LocalInvocationID.x; e < pc.experts; e += gl_WorkGroupSize.x) {
      top = max(top, order_key(UintIn(row + e * 4).v));
    }
    top = workgroup_max(top);
    largest = order_key_value(top);
    precise float sum = 0.0;
    for (uint e = gl_LocalInvocationID.x; e < pc.experts; e += gl_WorkGroupSize.x) {
      uint bits = UintIn(row + e * 4).v;
      uint k = order_key(bits);
      float term = k == kOrderKeyMinusInfinity ? 0.0
                   : k == top                  ? 1.0
                                               : exp(uintBitsToFloat(bits) - largest);
      score[e] = term;
      sum += term;
    }
    scale = workgroup_sum(sum);
  }
  for (uint e = gl_LocalInvocationID.x; e < pc.experts; e += gl_WorkGroupSize.x) {
    uint bits = UintIn(row + e * 4).v;
    float s;
    if (has(kMoeGateFlagSoftmax)) {
      s = scale > 0.0 ? score[e] / scale : 0.0;  // 0: not one logit above -infinity
    } else {
      s = 1.0 / (1.0 + exp(-uintBitsToFloat(bits)));
    }
    precise float selection = s;
    if (has(kMoeGateFlagBias)) selection += FloatIn(pc.bias + e * 4).v;
    score[e] = s;
    key[e] = is_nan(bits) ? kOrderKeyMinusInfinity : order_key(floatBitsToUint(selection));
  }
}

// Takes the experts of the groups that are not among the best out of the choice.
void keep_best_groups() {
  uint size = pc.experts / pc.n_group;
  for (uint g = gl_LocalInvocationID.x; g < pc.n_group; g += gl_WorkGroupSize.x) {
    uint first = kOrderKeyMinusInfinity, second = kOrderKeyMinusInfinity;
    for (uint e = g * size; e < (g + 1) * size; e++) {
      uint k = key[e];
      second = max(second, min(first, k));
      first = max(first, k);
    }
    if (has(kMoeGateFlagGroupTop2)) {
      precise float sum = order_key_value(first) + order_key_value(second);
      first = order_key(floatBitsToUint(sum));
    }
    group_key[g] = first;
  }
  barrier();
  for (uint g = gl_LocalInvocationID.x; g < pc.n_group; g += gl_WorkGroupSize.x) {
    uint mine = group_key[g], rank = 0;
    for (uint other = 0; other < pc.n_group; other++) {
      uint k = group_key[other];
      rank += uint(k > mine || (k == mine && other < g));
    }
    group_kept[g] = uint(rank < pc.topk_group);
  }
  barrier();
  for (uint e = gl_LocalInvocationID.x; e < pc.experts; e += gl_WorkGroupSize.x) {
    if (group_kept[e / size] == 0) key[e] = kOrderKeyMinusInfinity;
  }
}

// The best expert of those that this invocation owns.
void find_own_best(out uint best, out uint best_expert) {
  best = 0;
  best_expert = 0xffffffffu;
  for (uint e = gl_LocalInvocationID.x; e < pc.experts; e += gl_WorkGroupSize.x) {
    uint k = key[e];
    if (k > best) {
      best = k;
      best_expert = e;
    }
  }
}

void main() {
  uint token = gl_WorkGroupID.x;
  compute_scores(pc.logits + uint64_t(token) * pc.logits_stride * 4);
  barrier();
  if (has(kMoeGateFlagGroups)) keep_best_groups();

  uint best, best_expert;  // an invocation reads and writes its own keys only from here
  find_own_best(best, best_expert);
  precise float sum = 0.0;
  for (uint slot = 0; slot < pc.top_k; slot++) {
    uint top = workgroup_max(best);
    uint expert = ~workgroup_max(best == top ? ~best_expert : 0u);
    // Nothing left above -infinity: the lowest unused experts fill up, with weight 0.
    float s = top > kOrderKeyMinusInfinity ? score[expert] : 0.0;
    sum += s;
    if (gl_LocalInvocationID.x == 0) {
      chosen[slot] = expert;
      chosen_score[slot] = s;
    }
    if (best_expert == expert) {
      key[expert] = 0;
      find_own_best(best, best_expert);
    }
  }
  barrier();
  for (uint slot = gl_LocalInvocationID.x; slot < pc.top_k; slot += gl_WorkGroupSize.x) {
    uint64_t index = uint64_t(token) * pc.top_k + slot;
    float w = chosen_score[slot];
    if (has(kMoeGateFlagNorm)) w = w / (sum + 1e-20);
    UintOut(pc.indices + index * 4).v = chosen[slot];
    FloatOut(pc.weights + index * 4).v = w * pc.scaling;
  }
}
