#include "hadal/mla_prefill.h"

#include <algorithm>

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "mla_prefill";
using Plan = KernelPlan<MlaPrefillShape, MlaPrefill>;
static_assert(sizeof(hadal_device_mla_sequence) == sizeof(MlaPrefillSequence));
static_assert(offsetof(hadal_device_mla_sequence, flags) == offsetof(MlaPrefillSequence, flags));
static_assert(HADAL_MLA_FIRST == MlaPrefillSequence::kFirst);
static_assert(HADAL_MLA_LAST == MlaPrefillSequence::kLast);
}  // namespace

hadal_status hadal_mla_prefill_plan(hadal_context* context, const hadal_mla_prefill_desc* desc,
                                    hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_mla_prefill_desc& d) -> Result<std::unique_ptr<Plan>> {
    HADAL_TRY(check_size(kName, "nope", d.nope));
    HADAL_TRY(check_size(kName, "rope", d.rope));
    HADAL_TRY(check_size(kName, "v", d.v));
    HADAL_TRY(check_flags(kName, d.flags, HADAL_ATTENTION_NO_HALVES));
    MlaPrefillShape s = MlaPrefillShape::packed(0, d.q_len, d.heads, d.nope, d.rope, d.v);
    s.kv_rows = 0;
    s.scale = d.scale;
    s.sequences = d.batch ? 1 : 0;
    s.max_q_len = d.max_q_len ? d.max_q_len : d.q_len;
    set_stride(s.q_head_stride, d.q_head_stride);
    set_stride(s.o_head_stride, d.o_head_stride);
    s.q_row_stride = product(d.heads, s.q_head_stride);
    s.kv_row_stride = product(d.heads, uint64_t{d.nope} + d.v);
    s.o_row_stride = product(d.heads, s.o_head_stride);
    set_stride(s.q_row_stride, d.q_row_stride);
    set_stride(s.kv_row_stride, d.kv_row_stride);
    set_stride(s.k_pe_stride, d.k_pe_stride);
    set_stride(s.o_row_stride, d.o_row_stride);
    AttentionPolicy policy;
    policy.half_operands = !(d.flags & HADAL_ATTENTION_NO_HALVES);
    const auto choose = [&](const MlaPrefillShape& shape, const Caps& caps) {
      return mla_prefill_choose(shape, caps, policy);
    };
    HADAL_ASSIGN(auto made, plan_kernel<MlaPrefill>(c, s, mla_prefill_check, choose));
    // A batch of any size: the areas are those of as many workers as there can be.
    if (d.batch) s.sequences = UINT16_MAX;
    made->scratch_bytes = mla_prefill_scratch_bytes(s);
    return made;
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_mla_prefill_record(const hadal_plan* plan, VkCommandBuffer commands,
                                      const hadal_mla_prefill_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_mla_prefill_args& a) -> Status {
    MlaPrefillShape s = p.shape;
    const bool batch = s.sequences != 0;
    call.rows("q_len", a.q_len, s.q_len);
    s.kv_rows = a.kv_rows;
    if (batch) {
      if (a.sequence_count == 0) call.fail("sequence_count must be at least 1 in a batch, got 0");
      s.sequences = a.sequence_count;
      s.max_q_len = std::min(s.max_q_len, s.q_len);
    } else {
      HADAL_TRY(check_flags(kName, a.flags, HADAL_MLA_FIRST | HADAL_MLA_LAST));
      s.q_begin = a.q_begin, s.kv_begin = a.kv_begin;
      s.first = a.flags & HADAL_MLA_FIRST, s.last = a.flags & HADAL_MLA_LAST;
    }
    const bool some = s.q_len && s.heads && s.v;
    MlaPrefillArgs k;
    k.q = call.operand("q", a.q, 8, some && s.nope + s.rope);
    k.kv = call.operand("kv", a.kv, 8, some && s.kv_rows);
    k.k_pe = call.operand("k_pe", a.k_pe, 8, some && s.kv_rows && s.rope);
    k.o = call.operand("o", a.o, 4, some);
    k.state = call.operand("state", a.state, 4, some && !batch && !(s.first && s.last));
    k.sequences = call.operand("sequences", a.sequences, 4, some && batch);
    k.scratch = call.operand("scratch", a.scratch, 4, false);  // the kernel knows whether
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
