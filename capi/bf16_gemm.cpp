#include "hadal/bf16_gemm.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "bf16_gemm";
using Plan = KernelPlan<Bf16GemmShape, Bf16Gemm>;
}  // namespace

hadal_status hadal_bf16_gemm_plan(hadal_context* context, const hadal_bf16_gemm_desc* desc,
                                  hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_bf16_gemm_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "n", d.n));
    HADAL_TRY(check_size(kName, "k", d.k));
    HADAL_TRY(check_flags(kName, d.flags, HADAL_GEMM_ACCUMULATE));
    HADAL_ASSIGN(const auto a_type, enumerator<ElementType>(kName, "a_type", d.a_type, 2));
    Bf16GemmShape s = Bf16GemmShape::packed(d.m, d.n, d.k, a_type);
    HADAL_ASSIGN(s.d_type, enumerator<ElementType>(kName, "d_type", d.d_type, 2));
    s.accumulate = d.flags & HADAL_GEMM_ACCUMULATE;
    s.batch = d.batch ? d.batch : 1;
    s.a_batch_stride = d.a_batch_stride, s.b_batch_stride = d.b_batch_stride;
    s.d_batch_stride = d.d_batch_stride;
    set_stride(s.a_stride, d.a_stride);
    set_stride(s.b_stride, d.b_stride);
    set_stride(s.d_stride, d.d_stride);
    return plan_kernel<Bf16Gemm>(c, s, bf16_gemm_check, bf16_gemm_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_bf16_gemm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                    const hadal_bf16_gemm_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_bf16_gemm_args& a) -> Status {
    Bf16GemmShape s = p.shape;
    call.rows("m", a.m, s.m);
    const bool some = s.m && s.n, terms = some && s.k;
    Bf16GemmArgs k;
    k.a = call.operand("a", a.a, 16, terms);
    k.b = call.operand("b", a.b, 16, terms);
    k.d = call.operand("d", a.d, element_bytes(s.d_type), some);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
