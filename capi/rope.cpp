#include "hadal/rope.h"

#include <algorithm>

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "rope";
using Plan = KernelPlan<RopeShape, Rope>;
}  // namespace

hadal_status hadal_rope_table(const double* inverse_frequencies, uint32_t count, double amplitude,
                              uint32_t first_position, uint32_t positions, float* table,
                              hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!inverse_frequencies && count) {
      return invalid(kName, "inverse_frequencies must not be null");
    }
    if (!table && count && positions) return invalid(kName, "table must not be null");
    const std::vector<float> values =
        rope_table({inverse_frequencies, count}, amplitude, first_position, positions);
    std::copy(values.begin(), values.end(), table);
    return {};
  });
}

hadal_status hadal_rope_plan(hadal_context* context, const hadal_rope_desc* desc, hadal_plan** plan,
                             hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_rope_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "dim", d.dim));
    HADAL_TRY(check_size(kName, "offset", d.offset));
    RopeShape s = RopeShape::packed(d.rows, d.heads, d.dim, d.max_position);
    s.offset = d.offset;
    s.interleaved = !d.half_split;
    s.head_stride = d.head_stride ? d.head_stride : d.offset + d.dim;
    s.row_stride = d.row_stride ? d.row_stride : product(d.heads, s.head_stride);
    return plan_kernel<Rope>(c, s, rope_check, rope_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_rope_record(const hadal_plan* plan, VkCommandBuffer commands,
                               const hadal_rope_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_rope_args& a) -> Status {
    RopeShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    const bool some = s.rows && s.heads && s.dim;
    RopeArgs k;
    k.x = call.operand("x", a.x, 4, some);
    k.positions = call.operand("positions", a.positions, 4, some);
    k.table = call.operand("table", a.table, 4, some && s.max_position);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
