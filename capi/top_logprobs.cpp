#include "hadal/top_logprobs.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "top_logprobs";
using Plan = KernelPlan<TopLogprobsShape, TopLogprobs>;
}  // namespace

hadal_status hadal_top_logprobs_plan(hadal_context* context, const hadal_top_logprobs_desc* desc,
                                     hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_top_logprobs_desc& d) -> Result<std::unique_ptr<Plan>> {
    TopLogprobsShape s = TopLogprobsShape::packed(d.rows, d.vocab, d.top);
    set_stride(s.logits_stride, d.logits_stride);
    return plan_kernel<TopLogprobs>(c, s, top_logprobs_check, top_logprobs_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_top_logprobs_record(const hadal_plan* plan, VkCommandBuffer commands,
                                       const hadal_top_logprobs_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_top_logprobs_args& a) -> Status {
    TopLogprobsShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    s.listed = s.rows;
    call.rows("listed", a.listed ? a.listed : a.rows, s.listed);
    const bool some = s.listed != 0;
    TopLogprobsArgs k;
    k.logits = call.operand("logits", a.logits, 4, some && s.vocab);
    k.listed = call.operand("listed_rows", a.listed_rows, 4, false);
    k.ids = call.operand("ids", a.ids, 4, some);
    k.logprobs = call.operand("logprobs", a.logprobs, 4, some);
    k.top_ids = call.operand("top_ids", a.top_ids, 4, some && s.top);
    k.top_logprobs = call.operand("top_logprobs", a.top_logprobs, 4, some && s.top);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
