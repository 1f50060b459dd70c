#include "hadal/swiglu.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {

constexpr const char* kName = "swiglu";
constexpr const char* kTilesName = "swiglu_tiles";
using Plan = KernelPlan<SwigluShape, Swiglu>;
using TilesPlan = KernelPlan<SwigluShape, SwigluTiles>;

Result<SwigluShape> shape_of(const char* name, const hadal_swiglu_desc& d) {
  HADAL_TRY(check_size(name, "n", d.n));
  HADAL_TRY(check_flags(name, d.flags, HADAL_SWIGLU_Y | HADAL_SWIGLU_QUANTIZE));
  SwigluShape s = SwigluShape::packed(d.rows, d.n);
  HADAL_ASSIGN(s.scale_format, enumerator<ScaleFormat>(name, "scale_format", d.scale_format, 2));
  s.write_y = d.flags & HADAL_SWIGLU_Y;
  s.quantize = d.flags & HADAL_SWIGLU_QUANTIZE;
  set_stride(s.gate_stride, d.gate_stride);
  set_stride(s.up_stride, d.up_stride);
  set_stride(s.y_stride, d.y_stride);
  set_stride(s.q_stride, d.q_stride);
  set_stride(s.scale_stride, d.scale_stride);
  return s;
}

template <class Args>
SwigluArgs operands_of(Call& call, const SwigluShape& s, const Args& a, bool some) {
  SwigluArgs k;
  k.gate = call.operand("gate", a.gate, 4, some);
  k.up = call.operand("up", a.up, 4, some);
  if (s.write_y) k.y = call.operand("y", a.y, 4, some);
  if (s.quantize) {
    k.q = call.operand("q", a.q, 16, some);
    k.scale = call.operand("scale", a.scale, 4, some);
  }
  return k;
}

}  // namespace

hadal_status hadal_swiglu_plan(hadal_context* context, const hadal_swiglu_desc* desc,
                               hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_swiglu_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_ASSIGN(const SwigluShape s, shape_of(kName, d));
    return plan_kernel<Swiglu>(c, s, swiglu_check, swiglu_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_swiglu_record(const hadal_plan* plan, VkCommandBuffer commands,
                                 const hadal_swiglu_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_swiglu_args& a) -> Status {
    SwigluShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    const SwigluArgs k = operands_of(call, s, a, s.rows && s.n);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}

hadal_status hadal_swiglu_tiles_plan(hadal_context* context, const hadal_swiglu_desc* desc,
                                     hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_swiglu_desc& d) -> Result<std::unique_ptr<TilesPlan>> {
    HADAL_ASSIGN(const SwigluShape s, shape_of(kTilesName, d));
    SwigluConfig config;
    const auto choose = [&](const SwigluShape& shape, const Caps& caps) {
      return config = swiglu_choose(shape, caps);
    };
    HADAL_ASSIGN(auto made, plan_kernel<SwigluTiles>(c, s, swiglu_tiles_check, choose));
    made->groups_x = config.runs(s.n);
    return made;
  };
  return make_plan(kTilesName, context, desc, plan, error, make);
}

hadal_status hadal_swiglu_tiles_record(const hadal_plan* plan, VkCommandBuffer commands,
                                       const hadal_swiglu_tiles_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const TilesPlan& p, const hadal_swiglu_tiles_args& a) -> Status {
    SwigluShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    const bool some = s.rows && s.n;
    SwigluTilesArgs k;
    k.operands = operands_of(call, s, a, some);
    k.tiles = call.operand("tiles", a.tiles, 4, some);
    k.max_tiles = a.max_tiles;
    const Call::Indirect indirect = call.indirect(a.indirect, some);
    k.indirect_buffer = &indirect.buffer, k.indirect_offset = indirect.offset;
    return call.record(p, s, k);
  };
  return record_plan<TilesPlan>(kTilesName, plan, commands, args, error, fill);
}
