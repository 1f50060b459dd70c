#include "hadal/rms_norm.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "rms_norm";
using Plan = KernelPlan<RmsNormShape, RmsNorm>;
}  // namespace

hadal_status hadal_rms_norm_plan(hadal_context* context, const hadal_rms_norm_desc* desc,
                                 hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_rms_norm_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "n", d.n));
    HADAL_TRY(check_flags(kName, d.flags, 15));
    RmsNormShape s = RmsNormShape::packed(d.rows, d.n);
    HADAL_ASSIGN(s.scale_format, enumerator<ScaleFormat>(kName, "scale_format", d.scale_format, 2));
    s.add_residual = d.flags & HADAL_RMS_NORM_RESIDUAL;
    s.write_h = d.flags & HADAL_RMS_NORM_H;
    s.write_y = d.flags & HADAL_RMS_NORM_Y;
    s.quantize = d.flags & HADAL_RMS_NORM_QUANTIZE;
    if (d.eps != 0.0f) s.eps = d.eps;
    set_stride(s.x_stride, d.x_stride);
    set_stride(s.residual_stride, d.residual_stride);
    set_stride(s.h_stride, d.h_stride);
    set_stride(s.y_stride, d.y_stride);
    set_stride(s.q_stride, d.q_stride);
    set_stride(s.scale_stride, d.scale_stride);
    return plan_kernel<RmsNorm>(c, s, rms_norm_check, rms_norm_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_rms_norm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                   const hadal_rms_norm_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_rms_norm_args& a) -> Status {
    RmsNormShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    const bool some = s.rows && s.n;
    RmsNormArgs k;
    k.x = call.operand("x", a.x, 4, some);
    k.weight = call.operand("weight", a.weight, 4, some);
    if (s.add_residual) k.residual = call.operand("residual", a.residual, 4, some);
    if (s.write_h) k.h = call.operand("h", a.h, 4, some);
    if (s.write_y) k.y = call.operand("y", a.y, 4, some);
    if (s.quantize) {
      k.q = call.operand("q", a.q, 16, some);
      k.scale = call.operand("scale", a.scale, 4, some);
    }
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
