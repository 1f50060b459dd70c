#include "hadal/mla_decode.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "mla_decode";
using Plan = KernelPlan<MlaDecodeShape, MlaDecode>;
}  // namespace

hadal_status hadal_mla_decode_plan(hadal_context* context, const hadal_mla_decode_desc* desc,
                                   hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_mla_decode_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "rank", d.rank));
    HADAL_TRY(check_size(kName, "rope", d.rope));
    HADAL_TRY(check_flags(kName, d.flags, HADAL_ATTENTION_NO_HALVES));
    HADAL_ASSIGN(const auto format,
                 enumerator<CacheFormat>(kName, "cache_format", d.cache_format, 3));
    MlaDecodeShape s = MlaDecodeShape::packed(d.tokens, d.heads, d.rank, d.rope, d.max_kv_len,
                                              d.cache_rows, format);
    HADAL_ASSIGN(s.o_type, enumerator<ElementType>(kName, "o_type", d.o_type, 2));
    if (d.q_len) s.q_len = d.q_len;
    s.scale = d.scale;
    set_stride(s.q_latent_head_stride, d.q_latent_head_stride);
    set_stride(s.q_pe_head_stride, d.q_pe_head_stride);
    set_stride(s.o_head_stride, d.o_head_stride);
    s.q_latent_row_stride = product(d.heads, s.q_latent_head_stride);
    s.q_pe_row_stride = product(d.heads, s.q_pe_head_stride);
    s.o_row_stride = product(d.heads, s.o_head_stride);
    set_stride(s.q_latent_row_stride, d.q_latent_row_stride);
    set_stride(s.q_pe_row_stride, d.q_pe_row_stride);
    set_stride(s.o_row_stride, d.o_row_stride);
    set_stride(s.row_stride, d.row_stride);
    set_stride(s.table_stride, d.table_stride);
    AttentionPolicy policy;
    policy.half_operands = !(d.flags & HADAL_ATTENTION_NO_HALVES);
    const auto choose = [&](const MlaDecodeShape& shape, const Caps& caps) {
      return mla_decode_choose(shape, caps, policy);
    };
    HADAL_ASSIGN(auto made, plan_kernel<MlaDecode>(c, s, mla_decode_check, choose));
    made->scratch_bytes = mla_decode_scratch_bytes(s);
    return made;
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_mla_decode_record(const hadal_plan* plan, VkCommandBuffer commands,
                                     const hadal_mla_decode_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_mla_decode_args& a) -> Status {
    MlaDecodeShape s = p.shape;
    call.rows("tokens", a.tokens, s.tokens);
    if (a.max_kv_len) call.rows("max_kv_len", a.max_kv_len, s.max_kv_len);
    const bool some = s.tokens && s.heads;
    const bool fp8 = s.cache_format == CacheFormat::kFp8;
    MlaDecodeArgs k;
    k.q_latent = call.operand("q_latent", a.q_latent, 4, some);
    k.q_pe = call.operand("q_pe", a.q_pe, 4, some && s.rope);
    k.cache = call.operand("cache", a.cache, fp8 ? 16 : 8, some && s.cache_rows);
    k.block_tables = call.operand("block_tables", a.block_tables, 4, some && s.max_kv_len);
    k.kv_lens = call.operand("kv_lens", a.kv_lens, 4, some);
    k.o = call.operand("o", a.o, element_bytes(s.o_type), some);
    k.lse = call.operand("lse", a.lse, 4, false);
    k.scratch = call.operand("scratch", a.scratch, 4, false);  // the kernel knows whether
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
