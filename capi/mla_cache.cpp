// mla_cache_write and mla_cache_read, and what they share.
#include "hadal/mla_cache_read.h"
#include "hadal/mla_cache_write.h"
#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {

constexpr const char* kWriteName = "mla_cache_write";
constexpr const char* kReadName = "mla_cache_read";
using WritePlan = KernelPlan<MlaCacheWriteShape, MlaCacheWrite>;
using ReadPlan = KernelPlan<MlaCacheReadShape, MlaCacheRead>;
constexpr uint32_t kFormats = 3;

uint32_t cache_alignment(CacheFormat format) {
  return format == CacheFormat::kFp8 ? 16 : cache_stride_unit(format);
}

}  // namespace

uint32_t hadal_cache_row_stride(hadal_cache_format format, uint32_t rank, uint32_t rope) {
  if (format >= kFormats || uint64_t{rank} + rope >= 1u << 30) return 0;
  return cache_row_stride(CacheFormat(format), rank, rope);
}

uint64_t hadal_cache_row_bytes(hadal_cache_format format, uint32_t row_stride) {
  return format < kFormats ? uint64_t{row_stride} * cache_stride_unit(CacheFormat(format)) : 0;
}

hadal_status hadal_mla_cache_write_plan(hadal_context* context,
                                        const hadal_mla_cache_write_desc* desc, hadal_plan** plan,
                                        hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_mla_cache_write_desc& d) -> Result<std::unique_ptr<WritePlan>> {
    HADAL_TRY(check_size(kWriteName, "rank", d.rank));
    HADAL_TRY(check_size(kWriteName, "rope", d.rope));
    HADAL_ASSIGN(const auto format,
                 enumerator<CacheFormat>(kWriteName, "cache_format", d.cache_format, kFormats));
    MlaCacheWriteShape s =
        MlaCacheWriteShape::packed(d.tokens, d.rank, d.rope, d.cache_rows, d.max_position, format);
    HADAL_ASSIGN(s.rounding, enumerator<LatentRounding>(kWriteName, "rounding", d.rounding, 3));
    s.interleaved = !d.half_split;
    if (d.eps != 0.0f) s.eps = d.eps;
    set_stride(s.y_stride, d.y_stride);
    set_stride(s.row_stride, d.row_stride);
    return plan_kernel<MlaCacheWrite>(c, s, mla_cache_write_check, mla_cache_write_choose);
  };
  return make_plan(kWriteName, context, desc, plan, error, make);
}

hadal_status hadal_mla_cache_write_record(const hadal_plan* plan, VkCommandBuffer commands,
                                          const hadal_mla_cache_write_args* args,
                                          hadal_error* error) {
  const auto fill = [](Call& call, const WritePlan& p,
                       const hadal_mla_cache_write_args& a) -> Status {
    MlaCacheWriteShape s = p.shape;
    call.rows("tokens", a.tokens, s.tokens);
    const bool some = s.tokens && s.rank + s.rope && s.cache_rows;
    MlaCacheWriteArgs k;
    k.y = call.operand("y", a.y, 4, some);
    k.weight = call.operand("weight", a.weight, 4, some && s.rank);
    k.positions = call.operand("positions", a.positions, 4, some);
    k.table = call.operand("table", a.table, 4, some && s.rope && s.max_position);
    k.slots = call.operand("slots", a.slots, 4, some);
    k.cache = call.operand("cache", a.cache, cache_alignment(s.cache_format), some);
    return call.record(p, s, k);
  };
  return record_plan<WritePlan>(kWriteName, plan, commands, args, error, fill);
}

hadal_status hadal_mla_cache_read_plan(hadal_context* context,
                                       const hadal_mla_cache_read_desc* desc, hadal_plan** plan,
                                       hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_mla_cache_read_desc& d) -> Result<std::unique_ptr<ReadPlan>> {
    HADAL_TRY(check_size(kReadName, "rank", d.rank));
    HADAL_TRY(check_size(kReadName, "rope", d.rope));
    HADAL_ASSIGN(const auto format,
                 enumerator<CacheFormat>(kReadName, "cache_format", d.cache_format, kFormats));
    MlaCacheReadShape s = MlaCacheReadShape::packed(0, 0, d.rank, d.rope, d.cache_rows, format);
    HADAL_ASSIGN(s.scale_format,
                 enumerator<ScaleFormat>(kReadName, "scale_format", d.scale_format, 2));
    s.table_pages = d.table_pages;
    set_stride(s.row_stride, d.row_stride);
    set_stride(s.latent_stride, d.latent_stride);
    set_stride(s.k_pe_stride, d.k_pe_stride);
    set_stride(s.q_stride, d.q_stride);
    set_stride(s.scale_stride, d.scale_stride);
    return plan_kernel<MlaCacheRead>(c, s, mla_cache_read_check, mla_cache_read_choose);
  };
  return make_plan(kReadName, context, desc, plan, error, make);
}

hadal_status hadal_mla_cache_read_record(const hadal_plan* plan, VkCommandBuffer commands,
                                         const hadal_mla_cache_read_args* args,
                                         hadal_error* error) {
  const auto fill = [](Call& call, const ReadPlan& p,
                       const hadal_mla_cache_read_args& a) -> Status {
    MlaCacheReadShape s = p.shape;
    s.begin = a.begin, s.rows = a.rows;
    const bool some = s.rows != 0;
    MlaCacheReadArgs k;
    k.cache = call.operand("cache", a.cache, cache_alignment(s.cache_format), some && s.cache_rows);
    k.block_table = call.operand("block_table", a.block_table, 4, some);
    k.latent = call.operand("latent", a.latent, 4, false);
    k.k_pe = call.operand("k_pe", a.k_pe, 4, false);
    k.q = call.operand("q", a.q, 16, false);
    k.scale = call.operand("scale", a.scale, 4, false);
    return call.record(p, s, k);
  };
  return record_plan<ReadPlan>(kReadName, plan, commands, args, error, fill);
}
