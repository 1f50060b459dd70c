#include "hadal/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace hadal::reference {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53u} * c[0];
    const uint64_t product1 = uint64_t{0xcd9e8d57u} * c[2];
    c = {uint32_t(product1 >> 32) ^ c[1] ^ key[0], uint32_t(product1),
         uint32_t(product0 >> 32) ^ c[3] ^ key[1], uint32_t(product0)};
    key = {key[0] + 0x9e3779b9u, key[1] + 0xbb67ae85u};
  }
  return c;
}

SampleRow sample(const float* logits, uint32_t vocab, const SampleParams& params) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  SampleRow row;
  row.draw_margin = row.top_p_margin = row.min_p_margin = kInfinity;
  row.probabilities.assign(vocab, 0.0);

  std::vector<double> x(logits, logits + vocab);
  for (double& v : x) v = std::isnan(v) ? -kInfinity : v;
  std::vector<uint32_t> order(vocab);  // most probable first, ties by id
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return x[a] > x[b]; });
  const double largest = x[order[0]];
  row.id = order[0];
  row.greedy = !(params.temperature > 0.0f) || params.top_k == 1 || largest == -kInfinity;
  if (row.greedy) {
    row.probabilities[row.id] = 1.0;
    return row;
  }

  for (double v : x) {
    row.weights.push_back(v == largest      ? 1.0
                          : v == -kInfinity ? 0.0
                                            : std::exp((v - largest) / params.temperature));
  }
  size_t keep = params.top_k ? std::min<size_t>(params.top_k, vocab) : vocab;
  if (params.top_p >= 0.0f && params.top_p < 1.0f) {
    double all = 0.0, mass = 0.0;
    for (size_t i = 0; i < keep; ++i) all += row.weights[order[i]];
    size_t count = 0;
    while (count < keep && (count == 0 || mass < params.top_p * all)) {
      row.top_p_margin = std::fabs(mass / all - params.top_p);
      mass += row.weights[order[count++]];
    }
    row.top_p_margin = std::min(row.top_p_margin, std::fabs(mass / all - params.top_p));
    keep = count;
  }
  const double min_p = params.min_p > 0.0f ? std::min(1.0, double(params.min_p)) : 0.0;
  double sum = 0.0;
  for (size_t i = 0; i < keep; ++i) {
    const double w = row.weights[order[i]];
    if (min_p > 0.0 && w < 1.0) row.min_p_margin = std::min(row.min_p_margin, std::fabs(w - min_p));
    if (w < min_p) continue;
    row.probabilities[order[i]] = w;
    sum += w;
  }
  for (double& p : row.probabilities) p /= sum;

  const auto words = philox4x32({params.position, 0, 0, 0}, {params.seed_lo, params.seed_hi});
  const double u = std::ldexp(double(words[1]), -32) + std::ldexp(double(words[0]), -64);
  double before = 0.0;
  for (uint32_t id = 0; id < vocab; ++id) {
    if (row.probabilities[id] == 0.0) continue;
    row.id = id;  // the last one where rounding leaves the sum below u
    const double after = before + row.probabilities[id];
    row.draw_margin = std::min(u - before, std::fabs(after - u));
    if (after > u) break;
    before = after;
  }
  return row;
}

}  // namespace hadal::reference
