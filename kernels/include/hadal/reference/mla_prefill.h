// CPU reference of mla_prefill (hadal/mla_prefill.h), in double, written as the formula.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/mla_prefill.h"

namespace hadal::reference {

// Attention rows and what their error bound needs (attention_bound in tests/support/tolerance.h).
struct AttentionResult {
  std::vector<double> value;      // [rows, width]
  std::vector<double> magnitude;  // [rows, width]: sum of softmax * |value|
  // Per row: ln(sum(exp(score))), the largest sum of magnitudes of a score's terms, the largest
  // score less the smallest.
  std::vector<double> lse, score_magnitude, score_range;

  // Appends a row: scores and their magnitudes per key, values as values[key * stride + channel].
  // T: float or double.
  template <class T>
  void add_row(std::span<const double> scores, std::span<const double> score_magnitudes,
               const T* values, size_t stride, size_t width);
};

struct MlaPrefillInputs {
  const float* q = nullptr;     // strides as in the shape
  const float* kv = nullptr;    // row 0 is position shape.kv_begin
  const float* k_pe = nullptr;  // likewise
};

// [q_len, heads, v], over the keys of the shape's one call (first and last).
[[nodiscard]] AttentionResult mla_prefill(const MlaPrefillShape& shape,
                                          const MlaPrefillInputs& inputs);

}  // namespace hadal::reference
