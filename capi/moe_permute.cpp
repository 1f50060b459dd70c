#include "hadal/moe_permute.h"

#include <algorithm>

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "moe_permute";
constexpr const char* kCombineName = "moe_combine";
using Plan = KernelPlan<MoePermuteShape, MoePermute>;
using CombinePlan = KernelPlan<MoeCombineShape, MoeCombine>;
}  // namespace

hadal_status hadal_moe_permute_plan(hadal_context* context, const hadal_moe_permute_desc* desc,
                                    hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_moe_permute_desc& d) -> Result<std::unique_ptr<Plan>> {
    MoePermuteShape s = MoePermuteShape::packed(d.tokens, d.experts, d.top_k, d.tile_m);
    s.command_count = d.command_count;
    std::copy_n(d.groups_x, 4, s.groups_x.begin());
    return plan_kernel<MoePermute>(c, s, moe_permute_check, moe_permute_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_moe_permute_record(const hadal_plan* plan, VkCommandBuffer commands,
                                      const hadal_moe_permute_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_moe_permute_args& a) -> Status {
    MoePermuteShape s = p.shape;
    call.rows("tokens", a.tokens, s.tokens);
    const bool some = s.tokens && s.top_k;
    MoePermuteArgs k;
    k.indices = call.operand("indices", a.indices, 4, some);
    k.row_token = call.operand("row_token", a.row_token, 4, some);
    k.row_of = call.operand("row_of", a.row_of, 4, some);
    k.segment_ends = call.operand("segment_ends", a.segment_ends, 4, s.experts != 0);
    k.tiles = call.operand("tiles", a.tiles, 4, some && s.experts);
    k.commands = call.operand("commands", a.commands, 4, s.command_count != 0);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}

hadal_status hadal_moe_combine_plan(hadal_context* context, const hadal_moe_combine_desc* desc,
                                    hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_moe_combine_desc& d) -> Result<std::unique_ptr<CombinePlan>> {
    HADAL_TRY(check_flags(kCombineName, d.flags,
                          HADAL_MOE_COMBINE_ACCUMULATE | HADAL_MOE_COMBINE_SHARED));
    MoeCombineShape s = MoeCombineShape::packed(d.tokens, d.hidden, d.top_k);
    s.accumulate = d.flags & HADAL_MOE_COMBINE_ACCUMULATE;
    s.has_shared = d.flags & HADAL_MOE_COMBINE_SHARED;
    set_stride(s.x_stride, d.x_stride);
    set_stride(s.shared_stride, d.shared_stride);
    set_stride(s.y_stride, d.y_stride);
    return plan_kernel<MoeCombine>(c, s, moe_combine_check, moe_combine_choose);
  };
  return make_plan(kCombineName, context, desc, plan, error, make);
}

hadal_status hadal_moe_combine_record(const hadal_plan* plan, VkCommandBuffer commands,
                                      const hadal_moe_combine_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const CombinePlan& p,
                       const hadal_moe_combine_args& a) -> Status {
    MoeCombineShape s = p.shape;
    call.rows("tokens", a.tokens, s.tokens);
    const bool some = s.tokens && s.hidden, terms = some && s.top_k;
    MoeCombineArgs k;
    k.x = call.operand("x", a.x, 4, some);
    if (s.has_shared) k.shared = call.operand("shared", a.shared, 4, some);
    k.y = call.operand("y", a.y, 4, terms);
    k.row_of = call.operand("row_of", a.row_of, 4, terms);
    k.weights = call.operand("weights", a.weights, 4, terms);
    return call.record(p, s, k);
  };
  return record_plan<CombinePlan>(kCombineName, plan, commands, args, error, fill);
}
