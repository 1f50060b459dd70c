#include "hadal/moe_gate.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "moe_gate";
using Plan = KernelPlan<MoeGateShape, MoeGate>;
}  // namespace

hadal_status hadal_moe_gate_plan(hadal_context* context, const hadal_moe_gate_desc* desc,
                                 hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_moe_gate_desc& d) -> Result<std::unique_ptr<Plan>> {
    MoeGateShape s = MoeGateShape::packed(d.tokens, d.experts, d.top_k);
    if (d.n_group) s.n_group = d.n_group;
    if (d.topk_group) s.topk_group = d.topk_group;
    HADAL_ASSIGN(s.scoring, enumerator<GateScoring>(kName, "scoring", d.scoring, 2));
    HADAL_ASSIGN(s.method, enumerator<GateMethod>(kName, "method", d.method, 3));
    s.norm = !d.keep_sum;
    if (d.scaling != 0.0f) s.scaling = d.scaling;
    set_stride(s.logits_stride, d.logits_stride);
    return plan_kernel<MoeGate>(c, s, moe_gate_check, moe_gate_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_moe_gate_record(const hadal_plan* plan, VkCommandBuffer commands,
                                   const hadal_moe_gate_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_moe_gate_args& a) -> Status {
    MoeGateShape s = p.shape;
    call.rows("tokens", a.tokens, s.tokens);
    const bool some = s.tokens && s.top_k;
    MoeGateArgs k;
    k.logits = call.operand("logits", a.logits, 4, some);
    if (s.method == GateMethod::kNoauxTc) k.bias = call.operand("bias", a.bias, 4, some);
    k.indices = call.operand("indices", a.indices, 4, some);
    k.weights = call.operand("weights", a.weights, 4, some);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
