#include <algorithm>
#include <utility>

#include "hadal/reference/moe_gate.h"
#include "layer.h"
#include "ops.h"

namespace hadal::model::reference {
namespace {

namespace ref = ::hadal::reference;

Matrix mlp(const Matrix& x, const MlpWeights& w, const ModelConfig& c) {
  return linear(swiglu(linear(x, w.gate, c), linear(x, w.up, c)), w.down, c);
}

GateMethod gate_method(TopkMethod method) {
  switch (method) {
    case TopkMethod::kGreedy: return GateMethod::kGreedy;
    case TopkMethod::kGroupLimitedGreedy: return GateMethod::kGroupLimitedGreedy;
    case TopkMethod::kNoauxTc: break;
  }
  return GateMethod::kNoauxTc;
}

void choose_experts(const LayerWeights& layer, const ModelConfig& c, MlpTrace& t) {
  std::vector<float> bias;
  if (layer.correction_bias != nullptr) bias = decode_vector(*layer.correction_bias);
  t.router_logits = linear(t.normed, layer.router, c);
  MoeGateShape shape;
  shape.tokens = t.normed.rows, shape.experts = c.n_routed_experts;
  shape.top_k = c.num_experts_per_tok;
  shape.n_group = c.n_group, shape.topk_group = c.topk_group;
  shape.scoring =
      c.scoring_func == GateScore::kSigmoid ? GateScoring::kSigmoid : GateScoring::kSoftmax;
  shape.method = gate_method(c.topk_method);
  shape.norm = c.norm_topk_prob, shape.scaling = float(c.routed_scaling_factor);
  shape.logits_stride = c.n_routed_experts;
  ref::MoeGateResult gate = ref::moe_gate(shape, t.router_logits.data.data(), bias.data());
  t.experts = std::move(gate.indices);
  t.expert_weights = rounded(shape.tokens, shape.top_k, gate.weights);
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
