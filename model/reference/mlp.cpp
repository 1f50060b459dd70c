#include <algorithm>
#include <utility>

#include "hadal/reference/moe_gate.h"
#include "hadal/reference/moe_permute.h"
#include "layer.h"
#include "ops.h"

namespace hadal::model::reference {
namespace {

namespace ref = ::hadal::reference;

Matrix mlp(const Matrix& x, const MlpWeights& w, const ModelConfig& c, const ReferenceOptions& o) {
  return linear(swiglu(linear(x, w.gate, c, o), linear(x, w.up, c, o)), w.down, c, o);
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

// Every expert over its rows of the plan, its input's row t.normed[row_token].
Matrix run_experts(const LayerWeights& layer, const ModelConfig& c, const Matrix& normed,
                   const ref::MoePermutePlan& plan, const ReferenceOptions& options) {
  Matrix sorted(uint32_t(plan.row_token.size()), c.hidden_size);
  for (uint32_t e = 0, begin = 0; e < c.n_routed_experts; begin = plan.segment_ends[e++]) {
    Matrix x(plan.segment_ends[e] - begin, c.hidden_size);
    if (x.rows == 0) continue;
    for (uint32_t i = 0; i < x.rows; ++i) {
      std::ranges::copy(normed.row(plan.row_token[begin + i]), x.row(i).begin());
    }
    std::ranges::copy(mlp(x, layer.experts[e], c, options).data, sorted.row(begin).begin());
  }
  return sorted;
}

void run_moe(const LayerWeights& layer, const ModelConfig& c, const Matrix& x,
             const ReferenceOptions& options, MlpTrace& t) {
  choose_experts(layer, c, t);
  const uint32_t top_k = c.num_experts_per_tok;
  MoePermuteShape permute;
  permute.tokens = x.rows, permute.experts = c.n_routed_experts, permute.top_k = top_k;
  const ref::MoePermutePlan plan = ref::moe_permute(permute, t.experts.data());
  const Matrix sorted = run_experts(layer, c, t.normed, plan, options);
  t.expert_outputs = Matrix(x.rows * top_k, c.hidden_size);
  for (uint32_t slot = 0; slot < t.expert_outputs.rows; ++slot) {
    std::ranges::copy(sorted.row(plan.row_of[slot]), t.expert_outputs.row(slot).begin());
  }
  if (c.n_shared_experts > 0) t.shared = mlp(t.normed, layer.shared, c, options);

  MoeCombineShape combine;
  combine.tokens = x.rows, combine.hidden = c.hidden_size, combine.top_k = top_k;
  combine.has_shared = c.n_shared_experts > 0;
  ref::MoeCombineInputs inputs;
  inputs.x = x.data.data(), inputs.shared = t.shared.data.data(), inputs.y = sorted.data.data();
  inputs.row_of = plan.row_of.data(), inputs.weights = t.expert_weights.data.data();
  t.output = rounded(x.rows, c.hidden_size, ref::moe_combine(combine, inputs).value);
  combine.accumulate = true;
  t.result = rounded(x.rows, c.hidden_size, ref::moe_combine(combine, inputs).value);
}

}  // namespace

MlpTrace run_mlp(const LayerWeights& layer, const ModelConfig& c, const Matrix& x,
                 const ReferenceOptions& options) {
  MlpTrace t;
  t.normed = rms_norm(x, *layer.post_norm, c.rms_norm_eps);
  if (layer.moe) {
    run_moe(layer, c, x, options, t);
  } else {
    t.output = mlp(t.normed, layer.dense, c, options);
    t.result = add(x, t.output);
  }
  return t;
}

}  // namespace hadal::model::reference
