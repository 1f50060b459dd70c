#include "hadal/mla_absorb.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "mla_absorb";
using Plan = KernelPlan<MlaAbsorbShape, MlaAbsorb>;
}  // namespace

hadal_status hadal_mla_absorb_plan(hadal_context* context, const hadal_mla_absorb_desc* desc,
                                   hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_mla_absorb_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "nope", d.nope));
    HADAL_TRY(check_size(kName, "v", d.v));
    HADAL_TRY(check_size(kName, "rank", d.rank));
    HADAL_ASSIGN(const auto direction,
                 enumerator<MlaAbsorbDirection>(kName, "direction", d.direction, 2));
    HADAL_ASSIGN(const auto type,
                 enumerator<MlaAbsorbWeight>(kName, "weight_type", d.weight_type, 2));
    MlaAbsorbShape s =
        MlaAbsorbShape::packed(d.tokens, d.heads, d.nope, d.v, d.rank, direction, type);
    set_stride(s.w_stride, d.w_stride);
    set_stride(s.w_scale_stride, d.w_scale_stride);
    set_stride(s.in_head_stride, d.in_head_stride);
    set_stride(s.out_head_stride, d.out_head_stride);
    s.in_token_stride = product(d.heads, s.in_head_stride);
    s.out_token_stride = product(d.heads, s.out_head_stride);
    set_stride(s.in_token_stride, d.in_token_stride);
    set_stride(s.out_token_stride, d.out_token_stride);
    return plan_kernel<MlaAbsorb>(c, s, mla_absorb_check, mla_absorb_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_mla_absorb_record(const hadal_plan* plan, VkCommandBuffer commands,
                                     const hadal_mla_absorb_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_mla_absorb_args& a) -> Status {
    MlaAbsorbShape s = p.shape;
    call.rows("tokens", a.tokens, s.tokens);
    const bool some = s.tokens && s.heads && s.out_width(), terms = some && s.in_width();
    const bool scaled = s.weight_type == MlaAbsorbWeight::kE4m3;
    MlaAbsorbArgs k;
    k.in = call.operand("in", a.in, 4, terms);
    k.w = call.operand("w", a.w, 16, terms);
    k.w_scale = call.operand("w_scale", a.w_scale, 4, terms && scaled);
    k.out = call.operand("out", a.out, 4, some);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
