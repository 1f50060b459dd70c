#include "hadal/model/weights.h"

#include <fmt/format.h>

#include "hadal/grouped_gemm.h"
#include "hadal/model/fingerprint.h"
#include "hadal/model/model.h"
#include "weight_placer.h"

namespace hadal::model {
namespace {

std::string layer_name(uint32_t layer, const char* rest) {
  return fmt::format("model.layers.{}.{}", layer, rest);
}

Result<MlpWeights> load_mlp(WeightPlacer& placer, const std::string& prefix, uint32_t hidden,
                            uint32_t width) {
  MlpWeights w;
  HADAL_ASSIGN(w.gate, placer.linear(prefix + ".gate_proj.weight", width, hidden));
  HADAL_ASSIGN(w.up, placer.linear(prefix + ".up_proj.weight", width, hidden));
  HADAL_ASSIGN(w.down, placer.linear(prefix + ".down_proj.weight", hidden, width));
  return w;
}

Result<ExpertWeights> load_experts(WeightPlacer& placer, const std::string& prefix,
                                   const char* projection, uint32_t experts, uint32_t n,
                                   uint32_t k) {
  ExpertWeights w;
  std::vector<ExpertWeight> table;
  for (uint32_t e = 0; e < experts; ++e) {
    const std::string name = fmt::format("{}.experts.{}.{}.weight", prefix, e, projection);
    HADAL_ASSIGN(const LinearWeight expert, placer.linear(name, n, k));
    if (e > 0 && expert.is_fp8() != w.is_fp8) {
      return Status(Errc::kMalformed,
                    fmt::format("checkpoint: tensor {} must have the type of expert 0", name));
    }
    w.n = n, w.k = k;
    w.b_stride = expert.b_stride, w.b_scale_stride = expert.b_scale_stride;
    w.is_fp8 = expert.is_fp8();
    table.push_back({expert.b, expert.b_scale});
  }
  HADAL_ASSIGN(w.table, placer.bytes(std::as_bytes(std::span(table))));
  return w;
}

Result<MoeWeights> load_moe(WeightPlacer& placer, const ModelConfig& c, const std::string& prefix) {
  MoeWeights w;
  HADAL_ASSIGN(w.router,
               placer.bf16_matrix(prefix + ".gate.weight", c.n_routed_experts, c.hidden_size));
  if (c.topk_method == TopkMethod::kNoauxTc) {
    HADAL_ASSIGN(w.bias,
                 placer.vector(prefix + ".gate.e_score_correction_bias", c.n_routed_experts));
  }
  const uint32_t experts = c.n_routed_experts, width = c.moe_intermediate_size;
  HADAL_ASSIGN(w.gate, load_experts(placer, prefix, "gate_proj", experts, width, c.hidden_size));
  HADAL_ASSIGN(w.up, load_experts(placer, prefix, "up_proj", experts, width, c.hidden_size));
  HADAL_ASSIGN(w.down, load_experts(placer, prefix, "down_proj", experts, c.hidden_size, width));
  if (c.n_shared_experts > 0) {
    HADAL_ASSIGN(w.shared, load_mlp(placer, prefix + ".shared_experts", c.hidden_size,
                                    c.shared_intermediate_size()));
  }
  return w;
}

Result<AttentionWeights> load_attention(WeightPlacer& placer, const ModelConfig& c,
                                        const std::string& prefix, const LoadOptions& options) {
  AttentionWeights w;
  const uint32_t q_width = c.num_attention_heads * c.qk_head_dim();
  if (c.q_lora_rank > 0) {
    HADAL_ASSIGN(w.q_a, placer.linear(prefix + ".q_a_proj.weight", c.q_lora_rank, c.hidden_size));
    HADAL_ASSIGN(w.q_a_norm, placer.vector(prefix + ".q_a_layernorm.weight", c.q_lora_rank));
    HADAL_ASSIGN(w.q_b, placer.linear(prefix + ".q_b_proj.weight", q_width, c.q_lora_rank));
  } else {
    HADAL_ASSIGN(w.q_b, placer.linear(prefix + ".q_proj.weight", q_width, c.hidden_size));
  }
  HADAL_ASSIGN(w.kv_a, placer.linear(prefix + ".kv_a_proj_with_mqa.weight", c.cache_row_elems(),
                                     c.hidden_size));
  HADAL_ASSIGN(w.kv_a_norm, placer.vector(prefix + ".kv_a_layernorm.weight", c.kv_lora_rank));
  const uint32_t kv_width = c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
  const std::string kv_b = prefix + ".kv_b_proj.weight";
  HADAL_ASSIGN(w.kv_b, placer.linear(kv_b, kv_width, c.kv_lora_rank));
  w.absorb = w.kv_b;
  if (options.absorb_bf16 && w.kv_b.is_fp8()) {
    HADAL_ASSIGN(w.absorb, placer.linear_as_bf16(kv_b, kv_width, c.kv_lora_rank));
  }
  HADAL_ASSIGN(w.o, placer.linear(prefix + ".o_proj.weight", c.hidden_size,
                                  c.num_attention_heads * c.v_head_dim));
  return w;
}

Result<LayerWeights> load_layer(WeightPlacer& placer, const ModelConfig& c, uint32_t layer,
                                const LoadOptions& options) {
  LayerWeights w;
  HADAL_ASSIGN(w.input_norm,
               placer.vector(layer_name(layer, "input_layernorm.weight"), c.hidden_size));
  HADAL_ASSIGN(w.post_attention_norm,
               placer.vector(layer_name(layer, "post_attention_layernorm.weight"), c.hidden_size));
  HADAL_ASSIGN(w.attention, load_attention(placer, c, layer_name(layer, "self_attn"), options));
  if (c.is_moe_layer(layer)) {
    HADAL_ASSIGN(w.moe, load_moe(placer, c, layer_name(layer, "mlp")));
  } else {
    HADAL_ASSIGN(w.dense,
                 load_mlp(placer, layer_name(layer, "mlp"), c.hidden_size, c.intermediate_size));
  }
  return w;
}

Result<MtpWeights> load_mtp(WeightPlacer& placer, const ModelConfig& c, uint32_t layer,
                            const LoadOptions& options, const Weights& main) {
  MtpWeights w;
  HADAL_ASSIGN(w.embedding_norm, placer.vector(layer_name(layer, "enorm.weight"), c.hidden_size));
  HADAL_ASSIGN(w.hidden_norm, placer.vector(layer_name(layer, "hnorm.weight"), c.hidden_size));
  HADAL_ASSIGN(w.head_norm,
               placer.vector(layer_name(layer, "shared_head.norm.weight"), c.hidden_size));
  HADAL_ASSIGN(w.eh_proj, placer.bf16_matrix(layer_name(layer, "eh_proj.weight"), c.hidden_size,
                                             2 * c.hidden_size));
  HADAL_ASSIGN(w.layer, load_layer(placer, c, layer, options));
  // The published checkpoints repeat the main embedding and head here; a copy that differs is kept.
  const std::string embedding = layer_name(layer, "embed_tokens.weight");
  w.embedding = main.embedding;
  if (placer.has(embedding) && !placer.equal_tensors(embedding, "model.embed_tokens.weight")) {
    HADAL_ASSIGN(const LinearWeight own,
                 placer.bf16_matrix(embedding, c.vocab_size, c.hidden_size));
    w.embedding = own.b;
  }
  const std::string head = layer_name(layer, "shared_head.head.weight");
  const char* main_head = c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  w.head = main.head;
  if (placer.has(head) && !placer.equal_tensors(head, main_head)) {
    HADAL_ASSIGN(w.head, placer.bf16_matrix(head, c.vocab_size, c.hidden_size));
  }
  return w;
}

// The whole model in one fixed order; run once planning and once copying.
Status load_all(WeightPlacer& placer, const ModelConfig& c, const LoadOptions& options,
                Weights& w) {
  HADAL_ASSIGN(const LinearWeight embedding,
               placer.bf16_matrix("model.embed_tokens.weight", c.vocab_size, c.hidden_size));
  w.embedding = embedding.b;
  w.embedding_stride = embedding.b_stride;
  HADAL_ASSIGN(w.final_norm, placer.vector("model.norm.weight", c.hidden_size));
  if (c.tie_word_embeddings) {
    w.head = embedding;
  } else {
    HADAL_ASSIGN(w.head, placer.bf16_matrix("lm_head.weight", c.vocab_size, c.hidden_size));
  }
  for (uint32_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    HADAL_ASSIGN(LayerWeights loaded, load_layer(placer, c, layer, options));
    w.layers.push_back(std::move(loaded));
  }
  for (uint32_t i = 0; options.load_mtp && i < c.num_nextn_predict_layers; ++i) {
    HADAL_ASSIGN(MtpWeights loaded, load_mtp(placer, c, c.num_hidden_layers + i, options, w));
    w.mtp.push_back(std::move(loaded));
  }
  return {};
}

}  // namespace

Result<uint64_t> weights_device_bytes(const Checkpoint& checkpoint, const ModelConfig& config,
                                      const LoadOptions& options) {
  HADAL_TRY(check_supported(config));
  WeightPlacer plan(checkpoint, UINT64_MAX);
  Weights ignored;
  HADAL_TRY(load_all(plan, config, options, ignored));
  return plan.total_bytes();
}

Result<Weights> Weights::load(Device& device, const Checkpoint& checkpoint,
                              const ModelConfig& config, const LoadOptions& options) {
  const Caps& caps = device.caps();
  HADAL_TRY(check_supported(config));
  const bool in_place = options.zero_copy && caps.host_import_alignment > 0 && !caps.is_discrete;
  WeightPlacer plan(checkpoint, caps.max_allocation_bytes, in_place ? &device : nullptr);
  {
    Weights planned;
    HADAL_TRY(load_all(plan, config, options, planned));
  }
  if (plan.total_bytes() > caps.device_heap_free_bytes) {
    return Status(
        Errc::kOutOfDeviceMemory,
        fmt::format("load: the weights need {} bytes, the device has {} free of {}",
                    plan.total_bytes(), caps.device_heap_free_bytes, caps.device_heap_bytes));
  }
  Weights weights;
  weights.fingerprint = checkpoint_fingerprint(checkpoint, config);
  for (uint64_t bytes : plan.block_bytes()) {
    HADAL_ASSIGN(Buffer block, device.allocate(bytes));
    weights.blocks_.push_back(std::move(block));
  }
  const uint64_t planned_bytes = plan.total_bytes();
  WeightPlacer placer(std::move(plan), device, weights.blocks_, options);
  HADAL_TRY(load_all(placer, config, options, weights));
  weights.device_bytes_ = planned_bytes;
  weights.imports_ = placer.take_imports();
  return weights;
}

}  // namespace hadal::model
