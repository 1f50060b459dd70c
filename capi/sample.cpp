#include "hadal/sample.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "sample";
using Plan = KernelPlan<SampleShape, Sample>;
static_assert(sizeof(hadal_device_sample_params) == sizeof(SampleParams));
static_assert(offsetof(hadal_device_sample_params, position) == offsetof(SampleParams, position));
}  // namespace

hadal_status hadal_sample_plan(hadal_context* context, const hadal_sample_desc* desc,
                               hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_sample_desc& d) -> Result<std::unique_ptr<Plan>> {
    SampleShape s = SampleShape::packed(d.rows, d.vocab);
    set_stride(s.logits_stride, d.logits_stride);
    return plan_kernel<Sample>(c, s, sample_check, sample_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_sample_record(const hadal_plan* plan, VkCommandBuffer commands,
                                 const hadal_sample_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_sample_args& a) -> Status {
    SampleShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    SampleArgs k;
    k.logits = call.operand("logits", a.logits, 4, s.rows && s.vocab);
    k.params = call.operand("params", a.params, 4, s.rows != 0);
    k.ids = call.operand("ids", a.ids, 4, s.rows != 0);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
