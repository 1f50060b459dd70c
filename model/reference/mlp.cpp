#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "layer.h"
#include "ops.h"

namespace hadal::model::reference {
namespace {

constexpr float kOut = -std::numeric_limits<float>::infinity();

Matrix mlp(const Matrix& x, const MlpWeights& w, const ModelConfig& c) {
  return linear(swiglu(linear(x, w.gate, c), linear(x, w.up, c)), w.down, c);
}

std::vector<float> gate_scores(std::span<const float> logits, GateScore score) {
  std::vector<float> scores(logits.size());
  if (score == GateScore::kSigmoid) {
    for (size_t e = 0; e < scores.size(); ++e) {
      scores[e] = float(1.0 / (1.0 + std::exp(-double(logits[e]))));
    }
    return scores;
  }
  const double largest = double(*std::max_element(logits.begin(), logits.end()));
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(double(logit) - largest);
  for (size_t e = 0; e < scores.size(); ++e) {
    scores[e] = float(std::exp(double(logits[e]) - largest) / sum);
  }
  return scores;
}

// Indices of the `count` largest values, falling; the lower index first among equals.
std::vector<uint32_t> largest(std::span<const float> values, uint32_t count) {
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  order.resize(count);
  return order;
}

// Experts outside the best groups get -infinity: 0 would let them beat a negative biased score.
void mask_groups(std::vector<float>& choice, const ModelConfig& c) {
  const uint32_t size = c.n_routed_experts / c.n_group;
  std::vector<float> group_scores(c.n_group);
  for (uint32_t g = 0; g < c.n_group; ++g) {
    const std::span<const float> members(choice.data() + size_t{g} * size, size);
    const bool two = c.topk_method == TopkMethod::kNoauxTc && size > 1;
    const std::vector<uint32_t> best = largest(members, two ? 2 : 1);
    group_scores[g] = two ? members[best[0]] + members[best[1]] : members[best[0]];
  }
  const std::vector<uint32_t> kept = largest(group_scores, c.topk_group);
  for (uint32_t e = 0; e < c.n_routed_experts; ++e) {
    if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) choice[e] = kOut;
  }
}

void choose_experts(const LayerWeights& layer, const ModelConfig& c, MlpTrace& t) {
  const uint32_t top_k = c.num_experts_per_tok;
  std::vector<float> bias(c.n_routed_experts, 0.0f);
  if (layer.correction_bias != nullptr) bias = decode_vector(*layer.correction_bias);
  t.router_logits = linear(t.normed, layer.router, c);
  t.expert_weights = Matrix(t.normed.rows, top_k);
  for (uint32_t i = 0; i < t.normed.rows; ++i) {
    const std::vector<float> scores = gate_scores(t.router_logits.row(i), c.scoring_func);
    std::vector<float> choice = scores;
    for (uint32_t e = 0; e < c.n_routed_experts; ++e) choice[e] += bias[e];
    if (c.topk_method != TopkMethod::kGreedy) mask_groups(choice, c);
    const std::vector<uint32_t> chosen = largest(choice, top_k);
    double sum = 1e-20;  // against 0/0 when every sigmoid underflows
    for (const uint32_t e : chosen) sum += double(scores[e]);
    for (uint32_t k = 0; k < top_k; ++k) {
      const double weight = double(scores[chosen[k]]) / (c.norm_topk_prob ? sum : 1.0);
      t.expert_weights.row(i)[k] = float(weight * c.routed_scaling_factor);
    }
    t.experts.insert(t.experts.end(), chosen.begin(), chosen.end());
  }
}

// sum over the token's experts, in the gate's order, of weight x expert(x).
Matrix routed_experts(const LayerWeights& layer, const ModelConfig& c, const MlpTrace& t) {
  const uint32_t top_k = c.num_experts_per_tok, hidden = c.hidden_size;
  Matrix slots(t.normed.rows * top_k, hidden);  // one row per token and chosen expert
  for (uint32_t e = 0; e < c.n_routed_experts; ++e) {
    std::vector<uint32_t> mine;
    for (uint32_t s = 0; s < slots.rows; ++s) {
      if (t.experts[s] == e) mine.push_back(s);
    }
    if (mine.empty()) continue;
    Matrix x(uint32_t(mine.size()), hidden);
    for (uint32_t i = 0; i < x.rows; ++i) {
      std::ranges::copy(t.normed.row(mine[i] / top_k), x.row(i).begin());
    }
    const Matrix y = mlp(x, layer.experts[e], c);
    for (uint32_t i = 0; i < x.rows; ++i) std::ranges::copy(y.row(i), slots.row(mine[i]).begin());
  }
  Matrix sum(t.normed.rows, hidden);
  for (uint32_t i = 0; i < sum.rows; ++i) {
    for (uint32_t h = 0; h < hidden; ++h) {
      double total = 0.0;
      for (uint32_t k = 0; k < top_k; ++k) {
        total += double(t.expert_weights.row(i)[k]) * double(slots.row(i * top_k + k)[h]);
      }
      sum.row(i)[h] = float(total);
    }
  }
  return sum;
}

}  // namespace

MlpTrace run_mlp(const LayerWeights& layer, const ModelConfig& c, const Matrix& x) {
  MlpTrace t;
  t.normed = rms_norm(x, *layer.post_norm, c.rms_norm_eps);
  if (layer.moe) {
    choose_experts(layer, c, t);
    t.routed = routed_experts(layer, c, t);
    t.output = t.routed;
    if (c.n_shared_experts > 0) {
      t.shared = mlp(t.normed, layer.shared, c);
      t.output = add(t.routed, t.shared);
    }
  } else {
    t.output = mlp(t.normed, layer.dense, c);
  }
  t.result = add(x, t.output);
  return t;
}

}  // namespace hadal::model::reference
