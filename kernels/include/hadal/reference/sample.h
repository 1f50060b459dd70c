// CPU reference of sample (hadal/sample.h), one row at a time, in double.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "hadal/sample.h"

namespace hadal::reference {

struct SampleRow {
  uint32_t id = 0;
  std::vector<double> weights;        // exp((logit - max) / temperature) [vocab], before the cuts
  std::vector<double> probabilities;  // [vocab] after the cuts; the argmax alone when greedy
  bool greedy = false;
  // How close a decision was: distance of u to the nearer end of the id's step of the running mass,
  // of top_p to the mass before and at its last token, of min_p to the nearest weight. Infinity: no
  // rule.
  double draw_margin = 0.0, top_p_margin = 0.0, min_p_margin = 0.0;
};

[[nodiscard]] SampleRow sample(const float* logits, uint32_t vocab, const SampleParams& params);

// Philox4x32-10.
[[nodiscard]] std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                                 std::array<uint32_t, 2> key);

}  // namespace hadal::reference
