// CPU reference of moe_gate (hadal/moe_gate.h), in double.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/moe_gate.h"

namespace hadal::reference {

struct MoeGateResult {
  std::vector<uint32_t> indices;  // [tokens, top_k]
  std::vector<double> weights;    // [tokens, top_k]
  std::vector<double> scores;     // s [tokens, experts]
  std::vector<double> selection;  // c [tokens, experts], -infinity for NaN and lost groups
  std::vector<double> group_gap;  // [tokens] score of the last kept group - of the first lost one
};

// `logits` has rows at shape.logits_stride; `bias` is read by noaux_tc only.
[[nodiscard]] MoeGateResult moe_gate(const MoeGateShape& shape, const float* logits,
                                     const float* bias);

}  // namespace hadal::reference
