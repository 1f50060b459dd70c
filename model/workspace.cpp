#include "workspace.h"

#include <algorithm>

#include "hadal/grouped_gemm.h"
#include "hadal/mla_decode.h"
#include "hadal/mla_prefill.h"
#include "hadal/moe_permute.h"
#include "hadal/types.h"

namespace hadal::model {
namespace {

// Hands out 256-byte aligned offsets; the same walk sizes the buffer and then fills in addresses.
class Planner {
 public:
  explicit Planner(DeviceAddress base) : base_(base) {}
  [[nodiscard]] DeviceAddress take(uint64_t bytes) {
    const DeviceAddress at = base_ + used_;
    used_ += (bytes + 255) / 256 * 256;
    return at;
  }
  // Rows of `width` elements, each row a multiple of 16 bytes.
  [[nodiscard]] Rows rows(uint64_t count, uint32_t width, uint32_t element_bytes = 4) {
    const uint32_t stride = round_up(std::max(width, 1u), 16 / element_bytes);
    return {take(count * stride * element_bytes), stride};
  }
  [[nodiscard]] Activation activation(uint64_t count, uint32_t width, bool with_f32 = true) {
    Activation a;
    if (with_f32) a.f32 = rows(count, width);
    a.q.stride = fp8_row_stride(std::max(width, 1u));
    a.q.address = take(count * a.q.stride);
    a.scale = rows(count, ceil_div(width, kFp8BlockElems));
    return a;
  }
  [[nodiscard]] uint64_t used() const { return used_; }

 private:
  DeviceAddress base_;
  uint64_t used_ = 0;
};

void plan_attention(Planner& p, const ModelConfig& c, const ModelOptions& o, Workspace& w) {
  const uint32_t t = o.max_tokens, heads = c.num_attention_heads;
  w.normed = p.activation(t, c.hidden_size);
  w.q_a = p.rows(t, c.q_lora_rank);
  w.q_a_normed = p.activation(t, c.q_lora_rank);
  w.kv_a = p.rows(t, c.cache_row_elems());
  w.q = p.rows(t, float_row_stride(heads * c.qk_head_dim()));
  w.attention = p.rows(t, heads * c.v_head_dim);
  w.attention_in = p.activation(t, heads * c.v_head_dim, /*with_f32=*/false);
  w.attention_in.f32 = w.attention;
  w.q_latent = p.rows(o.max_decode_rows, heads * c.kv_lora_rank);
  w.o_latent = p.rows(o.max_decode_rows, heads * c.kv_lora_rank);
  w.softmax_state = p.rows(t, heads * 2);
  w.latent = p.activation(o.expansion_rows, c.kv_lora_rank);
  w.k_pe = p.rows(o.expansion_rows, c.qk_rope_head_dim);
  w.kv = p.rows(o.expansion_rows, float_row_stride(heads * (c.qk_nope_head_dim + c.v_head_dim)));
  // A pass of several sequences never has more of them than rows, nor a longer one.
  MlaPrefillShape prefill =
      MlaPrefillShape::packed(0, t, heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim);
  prefill.sequences = t, prefill.max_q_len = t;
  w.attention_scratch = p.take(
      std::max(mla_prefill_scratch_bytes(prefill),
               mla_decode_scratch_bytes(decode_shape(c, o, o.max_decode_rows, o.max_context))));
}

void plan_experts(Planner& p, const ModelConfig& c, const ModelOptions& o, Workspace& w) {
  const uint32_t t = o.max_tokens;
  const uint64_t routed = uint64_t{t} * c.num_experts_per_tok;
  // Dense layers use gate/up/swiglu with one row per token, experts with top_k rows of their width.
  const uint64_t dense_elems = uint64_t{t} * round_up(c.intermediate_size, 16);
  const uint64_t expert_elems = routed * round_up(c.moe_intermediate_size, 16);
  const uint64_t elems = std::max(dense_elems, expert_elems);
  w.gate.address = p.take(elems * 4);
  w.up.address = p.take(elems * 4);
  w.swiglu.f32.address = p.take(elems * 4);
  w.swiglu.q.address = p.take(elems);
  w.swiglu.scale.address = p.take(elems / 16 * 4);
  w.shared_gate = p.rows(t, c.shared_intermediate_size());
  w.shared_up = p.rows(t, c.shared_intermediate_size());
  w.shared_swiglu = p.activation(t, c.shared_intermediate_size());
  w.shared_out = p.rows(t, c.hidden_size);
  w.expert_out = p.rows(routed, c.hidden_size);
  w.router_logits = p.rows(t, c.n_routed_experts);
  w.expert_ids = p.take(routed * 4);
  w.expert_weights = p.take(routed * 4);
  w.row_token = p.take(routed * 4);
  w.row_of = p.take(routed * 4);
  w.segment_ends = p.take(uint64_t{c.n_routed_experts} * 4);
  MoePermuteShape shape;
  shape.tokens = t, shape.experts = c.n_routed_experts, shape.top_k = c.num_experts_per_tok;
  shape.tile_m = 1;  // the smallest tile makes the longest list
  w.tiles = p.take(uint64_t{moe_permute_max_tiles(shape)} * sizeof(MoeTile));
  w.commands_offset = p.take(4 * 12) - w.buffer.address();
}

uint64_t plan(const ModelConfig& c, const ModelOptions& o, Workspace& w) {
  Planner p(w.buffer.address());
  w.x = p.rows(o.max_tokens, c.hidden_size);
  w.hidden = p.rows(o.max_tokens, c.hidden_size);
  w.mtp_in = p.rows(o.max_tokens, 2 * c.hidden_size);
  w.head_in = p.rows(o.max_logit_rows, c.hidden_size);
  plan_attention(p, c, o, w);
  plan_experts(p, c, o, w);
  return p.used();
}

}  // namespace

MlaDecodeShape decode_shape(const ModelConfig& c, const ModelOptions& o, uint32_t tokens,
                            uint32_t max_kv_len) {
  return MlaDecodeShape::packed(tokens, c.num_attention_heads, c.kv_lora_rank, c.qk_rope_head_dim,
                                max_kv_len, round_up(o.max_context, 64));
}

Result<Workspace> Workspace::create(Device& device, const ModelConfig& config,
                                    const ModelOptions& options) {
  Workspace w;
  const uint64_t bytes = plan(config, options, w);
  HADAL_ASSIGN(w.buffer, device.allocate(bytes));
  plan(config, options, w);
  return w;
}

uint64_t workspace_bytes(const ModelConfig& config, const ModelOptions& options) {
  Workspace w;
  const uint64_t logits = uint64_t{options.max_logit_rows} * config.vocab_size * 4;
  const uint64_t rope = uint64_t{options.max_context} * config.qk_rope_head_dim * 4;
  return plan(config, options, w) + logits + rope;
}

uint64_t cache_bytes(const ModelConfig& config, uint32_t pages, CacheFormat format) {
  const uint64_t layers = config.num_hidden_layers + config.num_nextn_predict_layers;
  const uint32_t stride = cache_row_stride(format, config.kv_lora_rank, config.qk_rope_head_dim);
  return layers * pages * 64 * stride * cache_stride_unit(format);
}

}  // namespace hadal::model
