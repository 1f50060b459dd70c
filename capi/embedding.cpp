#include "hadal/embedding.h"

#include "plan.h"

using namespace hadal;        // NOLINT: an entry point of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {
constexpr const char* kName = "embedding";
using Plan = KernelPlan<EmbeddingShape, Embedding>;
}  // namespace

hadal_status hadal_embedding_plan(hadal_context* context, const hadal_embedding_desc* desc,
                                  hadal_plan** plan, hadal_error* error) {
  const auto make = [](hadal_context& c,
                       const hadal_embedding_desc& d) -> Result<std::unique_ptr<Plan>> {
    EmbeddingShape s = EmbeddingShape::packed(d.tokens, d.hidden, d.vocab);
    set_stride(s.table_stride, d.table_stride);
    set_stride(s.y_stride, d.y_stride);
    return plan_kernel<Embedding>(c, s, embedding_check, embedding_choose);
  };
  return make_plan(kName, context, desc, plan, error, make);
}

hadal_status hadal_embedding_record(const hadal_plan* plan, VkCommandBuffer commands,
                                    const hadal_embedding_args* args, hadal_error* error) {
  const auto fill = [](Call& call, const Plan& p, const hadal_embedding_args& a) -> Status {
    EmbeddingShape s = p.shape;
    call.rows("tokens", a.tokens, s.tokens);
    const bool some = s.tokens && s.hidden;
    EmbeddingArgs k;
    k.ids = call.operand("ids", a.ids, 4, some);
    k.table = call.operand("table", a.table, 2, some && s.vocab);
    k.y = call.operand("y", a.y, 4, some);
    return call.record(p, s, k);
  };
  return record_plan<Plan>(kName, plan, commands, args, error, fill);
}
