#include "hadal/reference/mla_prefill.h"

#include <algorithm>
#include <cmath>

namespace hadal::reference {

template <class T>
void AttentionResult::add_row(std::span<const double> scores,
                              std::span<const double> score_magnitudes, const T* values,
                              size_t stride, size_t width) {
  const size_t begin = value.size();
  value.resize(begin + width, 0.0), magnitude.resize(begin + width, 0.0);
  if (scores.empty()) {
    lse.push_back(-INFINITY), score_magnitude.push_back(0.0), score_range.push_back(0.0);
    return;
  }
  const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double s : scores) sum += std::exp(s - *high);
  for (size_t j = 0; j < scores.size(); ++j) {
    const double weight = std::exp(scores[j] - *high) / sum;
    for (size_t c = 0; c < width; ++c) {
      value[begin + c] += weight * double(values[j * stride + c]);
      magnitude[begin + c] += weight * std::fabs(double(values[j * stride + c]));
    }
  }
  lse.push_back(*high + std::log(sum));
  score_magnitude.push_back(*std::max_element(score_magnitudes.begin(), score_magnitudes.end()));
  score_range.push_back(*high - *low);
}

template void AttentionResult::add_row(std::span<const double>, std::span<const double>,
                                       const float*, size_t, size_t);
template void AttentionResult::add_row(std::span<const double>, std::span<const double>,
                                       const double*, size_t, size_t);

AttentionResult mla_prefill(const MlaPrefillShape& s, const MlaPrefillInputs& in) {
  AttentionResult result;
  for (uint32_t i = 0; i < s.q_len; ++i) {
    const uint32_t end = std::min(s.q_begin + i + 1, s.kv_begin + s.kv_rows);
    const uint32_t keys = end > s.kv_begin ? end - s.kv_begin : 0;
    for (uint32_t h = 0; h < s.heads; ++h) {
      const float* q = in.q + size_t(i) * s.q_row_stride + size_t(h) * s.q_head_stride;
      const float* kv = in.kv + size_t(h) * (s.nope + s.v);
      std::vector<double> scores(keys), magnitudes(keys);
      for (uint32_t j = 0; j < keys; ++j) {
        double sum = 0.0, magnitude = 0.0;
        const auto add = [&](float a, float b) {
          sum += double(a) * double(b), magnitude += std::fabs(double(a) * double(b));
        };
        for (uint32_t c = 0; c < s.nope; ++c) add(q[c], kv[size_t(j) * s.kv_row_stride + c]);
        for (uint32_t c = 0; c < s.rope; ++c) {
          add(q[s.nope + c], in.k_pe[size_t(j) * s.k_pe_stride + c]);
        }
        scores[j] = sum * double(s.scale);
        magnitudes[j] = magnitude * std::fabs(double(s.scale));
      }
      result.add_row(scores, magnitudes, kv + s.nope, s.kv_row_stride, s.v);
    }
  }
  return result;
}

}  // namespace hadal::reference
