#include "hadal/logit_adjust.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "logit_adjust";
using Plan = KernelPlan<LogitAdjustShape, LogitAdjust>;
static_assert(HADAL_NO_LOGIT_MASK == kNoLogitMask);
static_assert(sizeof(hadal_device_logit_row) == sizeof(LogitAdjustRow));
static_assert(offsetof(hadal_device_logit_row, presence) == offsetof(LogitAdjustRow, presence));
static_assert(sizeof(hadal_device_logit_edit) == sizeof(LogitEdit));
static_assert(offsetof(hadal_device_logit_edit, bias) == offsetof(LogitEdit, bias));
}  // namespace

hadal_status hadal_logit_adjust_plan(hadal_context* context, const hadal_logit_adjust_desc* desc,
                                     hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_logit_adjust_desc& d) -> Result<std::unique_ptr<Plan>> {
    LogitAdjustShape s = LogitAdjustShape::packed(d.rows, d.vocab);
    s.in_place = d.in_place;
    set_stride(s.x_stride, d.x_stride);
    set_stride(s.y_stride, d.y_stride);
    if (s.in_place) s.y_stride = s.x_stride;
    s.listed = d.listed, s.edits = d.edits, s.masks = d.masks;
    return plan_kernel<LogitAdjust>(c, s, logit_adjust_check, logit_adjust_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_logit_adjust_record(const hadal_plan* plan, VkCommandBuffer commands,
                                       const hadal_logit_adjust_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_logit_adjust_args& a) -> Status {
    LogitAdjustShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    call.rows("listed", a.listed, s.listed);
    call.rows("edits", a.edits, s.edits);
    call.rows("masks", a.masks, s.masks);
    const bool some = s.listed && s.rows && s.vocab;
    LogitAdjustArgs k;
    k.x = call.operand("x", a.x, 4, some);
    k.y = s.in_place ? k.x : call.operand("y", a.y, 4, some);
    k.listed = call.operand("listed_rows", a.listed_rows, 4, some);
    k.edits = call.operand("edit_list", a.edit_list, 4, some && s.edits);
    k.masks = call.operand("mask_bits", a.mask_bits, 4, some && s.masks);
    if (!some) return call.status();
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
