#include "hadal/moe_tiles.h"

#include <algorithm>

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "moe_tiles";
using Plan = KernelPlan<MoeTilesShape, MoeTiles>;
}  // namespace

hadal_status hadal_moe_tiles_plan(hadal_context* context, const hadal_moe_tiles_desc* desc,
                                  hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_moe_tiles_desc& d) -> Result<std::unique_ptr<Plan>> {
    MoeTilesShape s;
    s.experts = d.experts, s.rows = d.rows, s.tile_m = d.tile_m;
    if (d.m_max) {
      if (d.rows) return invalid(kName, fmt::format("rows must be 0 with m_max, got {}", d.rows));
      s.masked = true, s.m_max = d.m_max, s.rows = product(d.experts, d.m_max);
    }
    s.command_count = d.command_count;
    std::copy_n(d.groups_x, 4, s.groups_x.begin());
    return plan_kernel<MoeTiles>(c, s, moe_tiles_check, moe_tiles_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_moe_tiles_record(const hadal_plan* plan, VkCommandBuffer commands,
                                    const hadal_moe_tiles_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_moe_tiles_args& a) -> Status {
    const MoeTilesShape& s = p.shape;
    MoeTilesArgs k;
    k.segments = call.operand("segments", a.segments, 4, s.experts != 0);
    k.tiles = call.operand("tiles", a.tiles, 4, s.experts && s.rows);
    k.commands = call.operand("commands", a.commands, 4, s.command_count != 0);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
