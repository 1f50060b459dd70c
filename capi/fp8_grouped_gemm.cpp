#include "hadal/fp8_grouped_gemm.h"

#include "gemm.h"
#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "fp8_grouped_gemm";
using Plan = KernelPlan<Fp8GroupedGemmShape, Fp8GroupedGemm>;
static_assert(sizeof(hadal_device_moe_tile) == sizeof(MoeTile));
static_assert(offsetof(hadal_device_moe_tile, row_end) == offsetof(MoeTile, row_end));
static_assert(sizeof(hadal_device_expert) == sizeof(ExpertWeight));
static_assert(offsetof(hadal_device_expert, b_scale) == offsetof(ExpertWeight, b_scale));
}  // namespace

hadal_status hadal_fp8_grouped_gemm_plan(hadal_context* context,
                                         const hadal_fp8_grouped_gemm_desc* desc, hadal_plan** plan,
                                         hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_fp8_grouped_gemm_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "rows", d.rows));
    HADAL_TRY(check_size(kName, "n", d.n));
    HADAL_TRY(check_size(kName, "k", d.k));
    HADAL_TRY(check_flags(kName, d.flags, HADAL_GEMM_VARIANT_BITS | HADAL_GEMM_COARSE_SUMS));
    Fp8GroupedGemmShape s = Fp8GroupedGemmShape::packed(d.rows, d.experts, d.n, d.k);
    if (d.tokens) s.tokens = d.tokens;
    s.expected_rows = d.expected_rows;
    HADAL_ASSIGN(s.d_type, enumerator<ElementType>(kName, "d_type", d.d_type, 2));
    HADAL_ASSIGN(s.scales, scale_form(kName, d));
    set_stride(s.a_stride, d.a_stride);
    set_stride(s.a_scale_stride, d.a_scale_stride);
    set_stride(s.b_stride, d.b_stride);
    set_stride(s.b_scale_stride, d.b_scale_stride);
    set_stride(s.d_stride, d.d_stride);
    Fp8GroupedGemmConfig config;
    const auto choose = [&](const auto& shape, const Caps& caps) {
      return config = fp8_grouped_gemm_choose(shape, caps, gemm_policy(d.flags));
    };
    HADAL_ASSIGN(auto made, plan_kernel<Fp8GroupedGemm>(c, s, fp8_grouped_gemm_check, choose));
    set_tiling(config, *made);
    return made;
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_fp8_grouped_gemm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                           const hadal_fp8_grouped_gemm_args* args,
                                           hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_fp8_grouped_gemm_args& a) -> Status {
    Fp8GroupedGemmShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    call.rows("tokens", a.tokens ? a.tokens : a.rows, s.tokens);
    const bool some = s.rows && s.n, terms = some && s.k;
    Fp8GroupedGemmArgs k;
    k.a = call.operand("a", a.a, 16, terms);
    k.a_scale = call.operand("a_scale", a.a_scale, scale_bytes(s.scales.a_type), terms);
    k.a_rows = call.operand("a_rows", a.a_rows, 4, false);
    k.expert_table = call.operand("expert_table", a.expert_table, 8, some);
    k.tiles = call.operand("tiles", a.tiles, 4, some);
    k.d = call.operand("d", a.d, element_bytes(s.d_type), some);
    const Call::Indirect indirect = call.indirect(a.indirect, some);
    k.indirect_buffer = &indirect.buffer, k.indirect_offset = indirect.offset;
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}

hadal_status hadal_grouped_gemm_tiling(const hadal_plan* plan, hadal_grouped_tiling* tiling,
                                       hadal_error* error) {
  return guarded(error, [&]() -> Status {
    constexpr const char* kTiling = "grouped_gemm_tiling";
    if (!plan) return invalid(kTiling, "plan must not be null");
    if (plan->groups_x == 0 && plan->tile_m == 0) {
      return invalid(
          kTiling, fmt::format("plan must be of a kernel over a tile list, got {}", plan->kernel));
    }
    const hadal_grouped_tiling out{sizeof(out), plan->tile_m, plan->groups_x, plan->max_tiles};
    return write_struct(kTiling, "tiling", out, tiling);
  });
}

uint32_t hadal_grouped_gemm_max_tiles(uint32_t rows, uint32_t experts, uint32_t tile_m) {
  return tile_m ? grouped_gemm_max_tiles(rows, experts, tile_m) : 0;
}
