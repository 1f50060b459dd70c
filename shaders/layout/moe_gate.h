// Everything that kernels/moe_gate.cpp and shaders/moe_gate.comp both know.
#ifndef HADAL_LAYOUT_MOE_GATE_H_
#define HADAL_LAYOUT_MOE_GATE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

// Shared memory of one workgroup: 8 bytes per expert.
HADAL_CONST(kMoeGateMaxExperts, 1024);
HADAL_CONST(kMoeGateMaxGroups, 64);
HADAL_CONST(kMoeGateMaxTopK, 32);

HADAL_CONST(kMoeGateSpecTopK, 10);  // moe_gate_lanes, moe_gate_sorted: top_k
HADAL_CONST(kMoeGateSpecKept, 11);  // moe_gate_sorted: groups that stay, 1 without groups

// moe_gate_sorted: the most it keeps, and what an expert count or a group's size is a multiple of.
HADAL_CONST(kMoeGateSortedTopK, 8);
HADAL_CONST(kMoeGateSortedKept, 4);
HADAL_CONST(kMoeGateSortedExperts, 16);

HADAL_CONST(kMoeGateFlagSoftmax, 1);    // scores are softmax(logits), else sigmoid
HADAL_CONST(kMoeGateFlagBias, 2);       // selection adds the bias
HADAL_CONST(kMoeGateFlagGroups, 4);     // only experts of the best groups may be chosen
HADAL_CONST(kMoeGateFlagGroupTop2, 8);  // a group's score: its two largest added, else its largest
HADAL_CONST(kMoeGateFlagNorm, 16);      // weights are divided by their sum + 1e-20

struct MoeGatePush {
  uint64_t logits;   // [tokens, experts] float
  uint64_t bias;     // [experts] float
  uint64_t indices;  // [tokens, top_k] uint
  uint64_t weights;  // [tokens, top_k] float
  uint experts;
  uint top_k;
  uint n_group;
  uint topk_group;
  uint logits_stride;  // elements
  uint flags;
  float scaling;
  uint tokens;  // moe_gate_lanes, moe_gate_sorted: rows
};
HADAL_CHECK_SIZE(MoeGatePush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MOE_GATE_H_
