// Bytes of a model's weights by its config.json alone: the loader's walk (weights.cpp) without a
// checkpoint.
#include <algorithm>

#include "hadal/grouped_gemm.h"
#include "hadal/model/weights.h"
#include "hadal/types.h"

namespace hadal::model {
namespace {

class Sum {
 public:
  explicit Sum(bool is_fp8) : is_fp8_(is_fp8) {}
  void bytes(uint64_t count) { total_ += (std::max<uint64_t>(count, 16) + 255) / 256 * 256; }
  void vector(uint64_t n) { bytes(n * 4); }
  void bf16(uint64_t n, uint32_t k) { bytes(n * round_up(k, 8) * 2); }
  void linear(uint32_t n, uint32_t k) {
    if (!is_fp8_) return bf16(n, k);
    bytes(uint64_t{n} * round_up(k, 16));
    bytes(uint64_t{ceil_div(n, kFp8BlockElems)} * ceil_div(k, kFp8BlockElems) * 4);
  }
  void mlp(uint32_t hidden, uint32_t width) {
    linear(width, hidden), linear(width, hidden), linear(hidden, width);
  }
  [[nodiscard]] uint64_t total() const { return total_; }

 private:
  bool is_fp8_;
  uint64_t total_ = 0;
};

void add_attention(Sum& sum, const ModelConfig& c, bool absorb_bf16) {
  const uint32_t q_width = c.num_attention_heads * c.qk_head_dim();
  const uint32_t kv_width = c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
  if (c.q_lora_rank > 0) sum.linear(c.q_lora_rank, c.hidden_size), sum.vector(c.q_lora_rank);
  sum.linear(q_width, c.q_lora_rank > 0 ? c.q_lora_rank : c.hidden_size);
  sum.linear(c.cache_row_elems(), c.hidden_size);
  sum.vector(c.kv_lora_rank);
  sum.linear(kv_width, c.kv_lora_rank);
  if (absorb_bf16) sum.bf16(kv_width, c.kv_lora_rank);
  sum.linear(c.hidden_size, c.num_attention_heads * c.v_head_dim);
}

void add_layer(Sum& sum, const ModelConfig& c, uint32_t layer, bool absorb_bf16) {
  sum.vector(c.hidden_size), sum.vector(c.hidden_size);  // norms
  add_attention(sum, c, absorb_bf16);
  if (!c.is_moe_layer(layer)) return sum.mlp(c.hidden_size, c.intermediate_size);
  sum.bf16(c.n_routed_experts, c.hidden_size);
  if (c.topk_method == TopkMethod::kNoauxTc) sum.vector(c.n_routed_experts);
  for (uint32_t e = 0; e < c.n_routed_experts; ++e) sum.mlp(c.hidden_size, c.moe_intermediate_size);
  for (int projection = 0; projection < 3; ++projection) {
    sum.bytes(uint64_t{c.n_routed_experts} * sizeof(ExpertWeight));
  }
  if (c.n_shared_experts > 0) sum.mlp(c.hidden_size, c.shared_intermediate_size());
}

}  // namespace

uint64_t weights_device_bytes(const ModelConfig& c, const LoadOptions& options) {
  const bool is_fp8 = c.weight_format != WeightFormat::kBf16;
  const bool absorb_bf16 = options.absorb_bf16 && is_fp8;
  Sum sum(is_fp8);
  sum.bf16(c.vocab_size, c.hidden_size);
  sum.vector(c.hidden_size);
  if (!c.tie_word_embeddings) sum.bf16(c.vocab_size, c.hidden_size);
  const uint32_t mtp = options.load_mtp ? c.num_nextn_predict_layers : 0;
  for (uint32_t layer = 0; layer < c.num_hidden_layers + mtp; ++layer) {
    add_layer(sum, c, layer, absorb_bf16);
  }
  for (uint32_t i = 0; i < mtp; ++i) {
    for (int norm = 0; norm < 3; ++norm) sum.vector(c.hidden_size);
    sum.bf16(c.hidden_size, 2 * c.hidden_size);  // eh_proj
  }
  return sum.total();
}

}  // namespace hadal::model
