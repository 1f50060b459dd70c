// How far apart two sets of logits [rows, vocab] are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

namespace hadal::test {

// Index of the largest value, the lowest among equals.
[[nodiscard]] inline uint32_t argmax(std::span<const float> row) {
  return uint32_t(std::max_element(row.begin(), row.end()) - row.begin());
}

// |got - want| / |want| over all elements.
[[nodiscard]] inline double relative_l2(std::span<const float> want, std::span<const float> got) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = double(want[i]), d = double(got[i]) - w;
    difference += d * d;
    norm += w * w;
  }
  return std::sqrt(difference / norm);
}

// log(sum(exp(row))).
[[nodiscard]] inline double log_sum_exp(std::span<const float> row) {
  const double largest = double(*std::max_element(row.begin(), row.end()));
  double sum = 0.0;
  for (const float v : row) sum += std::exp(double(v) - largest);
  return largest + std::log(sum);
}

// KL(softmax(want) || softmax(got)) in nats, of one row.
[[nodiscard]] inline double kl_divergence(std::span<const float> want, std::span<const float> got) {
  const double want_norm = log_sum_exp(want), got_norm = log_sum_exp(got);
  double kl = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double log_p = double(want[i]) - want_norm, log_q = double(got[i]) - got_norm;
    kl += std::exp(log_p) * (log_p - log_q);
  }
  return kl;
}

struct LogitsDistance {
  double relative_l2 = 0.0;
  double mean_kl = 0.0;  // over rows, in nats
  double max_kl = 0.0;
  double top1 = 0.0;  // share of rows with the same argmax
};

// Sizes must be equal and a multiple of vocab. NaN anywhere makes the KL NaN, which fails every <=.
[[nodiscard]] inline LogitsDistance logits_distance(std::span<const float> want,
                                                    std::span<const float> got, uint32_t vocab) {
  const size_t rows = want.size() / vocab;
  LogitsDistance d;
  d.relative_l2 = relative_l2(want, got);
  for (size_t r = 0; r < rows; ++r) {
    const auto w = want.subspan(r * vocab, vocab), g = got.subspan(r * vocab, vocab);
    const double kl = kl_divergence(w, g);
    d.mean_kl += kl / double(rows);
    d.max_kl = std::max(d.max_kl, kl);
    d.top1 += (argmax(w) == argmax(g) ? 1.0 : 0.0) / double(rows);
  }
  return d;
}

}  // namespace hadal::test
