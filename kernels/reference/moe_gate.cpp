#include "hadal/reference/moe_gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace hadal::reference {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Positions 0..n-1, best value first, ties by position.
std::vector<uint32_t> ranked(const std::vector<double>& values) {
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  return order;
}

std::vector<double> scores_of(const MoeGateShape& s, const float* logits) {
  std::vector<double> scores(s.experts, 0.0);
  double largest = kMinusInfinity, sum = 0.0;
  for (uint32_t e = 0; e < s.experts; ++e) {
    if (!std::isnan(logits[e])) largest = std::max(largest, double(logits[e]));
  }
  for (uint32_t e = 0; e < s.experts; ++e) {
    const double x = logits[e];
    if (std::isnan(x)) continue;
    if (s.scoring == GateScoring::kSigmoid) {
      scores[e] = 1.0 / (1.0 + std::exp(-x));
    } else if (x > kMinusInfinity) {
      scores[e] = x == largest ? 1.0 : std::exp(x - largest);
      sum += scores[e];
    }
  }
  if (s.scoring == GateScoring::kSoftmax && sum > 0.0) {
    for (double& v : scores) v /= sum;
  }
  return scores;
}

// Sets c of the groups that are left out to -infinity; returns the gap between kept and lost.
double keep_best_groups(const MoeGateShape& s, std::vector<double>& c) {
  const uint32_t size = s.experts / s.n_group;
  std::vector<double> groups;
  for (uint32_t g = 0; g < s.n_group; ++g) {
    std::vector<double> members(c.begin() + g * size, c.begin() + (g + 1) * size);
    std::sort(members.rbegin(), members.rend());
    double score = members[0];
    if (s.method == GateMethod::kNoauxTc) score += members[1];
    groups.push_back(std::isnan(score) ? kMinusInfinity : score);
  }
  const std::vector<uint32_t> order = ranked(groups);
  for (uint32_t i = s.topk_group; i < s.n_group; ++i) {
    std::fill_n(c.begin() + order[i] * size, size, kMinusInfinity);
  }
  return groups[order[s.topk_group - 1]] - groups[order[s.topk_group]];
}

}  // namespace

MoeGateResult moe_gate(const MoeGateShape& s, const float* logits, const float* bias) {
  MoeGateResult result;
  for (uint32_t t = 0; t < s.tokens; ++t) {
    const float* row = logits + size_t(t) * s.logits_stride;
    const std::vector<double> scores = scores_of(s, row);
    std::vector<double> c = scores;
    for (uint32_t e = 0; e < s.experts; ++e) {
      if (s.method == GateMethod::kNoauxTc) c[e] += double(bias[e]);
      if (std::isnan(row[e]) || std::isnan(c[e])) c[e] = kMinusInfinity;
    }
    double gap = std::numeric_limits<double>::infinity();
    if (s.method != GateMethod::kGreedy && s.topk_group < s.n_group) gap = keep_best_groups(s, c);
    const std::vector<uint32_t> order = ranked(c);
    double sum = 0.0;
    std::vector<double> weights;
    for (uint32_t k = 0; k < s.top_k; ++k) {
      weights.push_back(c[order[k]] > kMinusInfinity ? scores[order[k]] : 0.0);
      sum += weights.back();
    }
    for (uint32_t k = 0; k < s.top_k; ++k) {
      result.indices.push_back(order[k]);
      result.weights.push_back((s.norm ? weights[k] / (sum + 1e-20) : weights[k]) * s.scaling);
    }
    result.scores.insert(result.scores.end(), scores.begin(), scores.end());
    result.selection.insert(result.selection.end(), c.begin(), c.end());
    result.group_gap.push_back(gap);
  }
  return result;
}

}  // namespace hadal::reference
