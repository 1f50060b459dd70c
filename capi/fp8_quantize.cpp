#include "hadal/fp8_quantize.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "fp8_quantize";
using Plan = KernelPlan<Fp8QuantizeShape, Fp8Quantize>;
}  // namespace

hadal_status hadal_fp8_quantize_plan(hadal_context* context, const hadal_fp8_quantize_desc* desc,
                                     hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_fp8_quantize_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "k", d.k));
    HADAL_ASSIGN(const auto format,
                 enumerator<ScaleFormat>(kName, "scale_format", d.scale_format, 2));
    Fp8QuantizeShape s = Fp8QuantizeShape::packed(d.rows, d.k, format);
    HADAL_ASSIGN(s.scale_type, enumerator<ScaleType>(kName, "scale_type", d.scale_type, 2));
    set_stride(s.x_stride, d.x_stride);
    set_stride(s.q_stride, d.q_stride);
    set_stride(s.scale_stride, d.scale_stride);
    return plan_kernel<Fp8Quantize>(c, s, fp8_quantize_check, fp8_quantize_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_fp8_quantize_record(const hadal_plan* plan, VkCommandBuffer commands,
                                       const hadal_fp8_quantize_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_fp8_quantize_args& a) -> Status {
    Fp8QuantizeShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    const bool some = s.rows && s.k;
    Fp8QuantizeArgs k;
    k.x = call.operand("x", a.x, 4, some);
    k.q = call.operand("q", a.q, 16, some);
    k.scale = call.operand("scale", a.scale, scale_bytes(s.scale_type), some);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
