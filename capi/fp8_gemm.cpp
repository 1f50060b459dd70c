#include "hadal/fp8_gemm.h"

#include "gemm.h"
#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "fp8_gemm";
using Plan = KernelPlan<Fp8GemmShape, Fp8Gemm>;
}  // namespace

hadal_status hadal_fp8_gemm_plan(hadal_context* context, const hadal_fp8_gemm_desc* desc,
                                 hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_fp8_gemm_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "n", d.n));
    HADAL_TRY(check_size(kName, "k", d.k));
    HADAL_TRY(check_flags(kName, d.flags, 7));
    Fp8GemmShape s = Fp8GemmShape::packed(d.m, d.n, d.k);
    HADAL_ASSIGN(s.d_type, enumerator<ElementType>(kName, "d_type", d.d_type, 2));
    HADAL_ASSIGN(s.scales, scale_form(kName, d));
    s.accumulate = d.flags & HADAL_GEMM_ACCUMULATE;
    set_stride(s.a_stride, d.a_stride);
    set_stride(s.a_scale_stride, d.a_scale_stride);
    set_stride(s.b_stride, d.b_stride);
    set_stride(s.b_scale_stride, d.b_scale_stride);
    set_stride(s.d_stride, d.d_stride);
    return plan_kernel<Fp8Gemm>(c, s, fp8_gemm_check, [&](const auto& shape, const Caps& caps) {
      return fp8_gemm_choose(shape, caps, gemm_policy(d.flags));
    });
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_fp8_gemm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                   const hadal_fp8_gemm_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_fp8_gemm_args& a) -> Status {
    Fp8GemmShape s = p.shape;
    call.rows("m", a.m, s.m);
    const bool some = s.m && s.n, terms = some && s.k;
    Fp8GemmArgs k;
    k.a = call.operand("a", a.a, 16, terms);
    k.a_scale = call.operand("a_scale", a.a_scale, scale_bytes(s.scales.a_type), terms);
    k.b = call.operand("b", a.b, 16, terms);
    k.b_scale = call.operand("b_scale", a.b_scale, scale_bytes(s.scales.b_type), terms);
    k.d = call.operand("d", a.d, element_bytes(s.d_type), some);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
