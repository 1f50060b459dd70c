#include "hadal/bf16_grouped_gemm.h"

#include "gemm.h"
#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "bf16_grouped_gemm";
using Plan = KernelPlan<Bf16GroupedGemmShape, Bf16GroupedGemm>;
}  // namespace

hadal_status hadal_bf16_grouped_gemm_plan(hadal_context* context,
                                          const hadal_bf16_grouped_gemm_desc* desc,
                                          hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_bf16_grouped_gemm_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "rows", d.rows));
    HADAL_TRY(check_size(kName, "n", d.n));
    HADAL_TRY(check_size(kName, "k", d.k));
    Bf16GroupedGemmShape s = Bf16GroupedGemmShape::packed(d.rows, d.experts, d.n, d.k);
    if (d.tokens) s.tokens = d.tokens;
    s.expected_rows = d.expected_rows;
    HADAL_ASSIGN(s.d_type, enumerator<ElementType>(kName, "d_type", d.d_type, 2));
    set_stride(s.a_stride, d.a_stride);
    set_stride(s.b_stride, d.b_stride);
    set_stride(s.d_stride, d.d_stride);
    Bf16GroupedGemmConfig config;
    const auto choose = [&](const auto& shape, const Caps& caps) {
      return config = bf16_grouped_gemm_choose(shape, caps);
    };
    HADAL_ASSIGN(auto made, plan_kernel<Bf16GroupedGemm>(c, s, bf16_grouped_gemm_check, choose));
    set_tiling(config, *made);
    return made;
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_bf16_grouped_gemm_record(const hadal_plan* plan, VkCommandBuffer commands,
                                            const hadal_bf16_grouped_gemm_args* args,
                                            hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_bf16_grouped_gemm_args& a) -> Status {
    Bf16GroupedGemmShape s = p.shape;
    call.rows("rows", a.rows, s.rows);
    call.rows("tokens", a.tokens ? a.tokens : a.rows, s.tokens);
    const bool some = s.rows && s.n;
    Bf16GroupedGemmArgs k;
    k.a = call.operand("a", a.a, 16, some && s.k);
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
