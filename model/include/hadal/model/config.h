// What config.json says about a model of the DeepSeek-V3 family, in one plain struct.
// Source: the configs published with DeepSeek-V3/-0324/R1/V3.1, Moonlight-16B-A3B, Kimi-K2 and
// DeepSeek-V2-Lite, and the defaults of transformers' DeepseekV3Config / DeepseekV2Config.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/status.h"

namespace hadal::model {

enum class GateScore { kSigmoid, kSoftmax };

// How experts are chosen from the scores.
enum class TopkMethod {
  kNoauxTc,             // V3: + correction bias; a group's score is the sum of its two largest
  kGroupLimitedGreedy,  // V2: no bias; a group's score is its maximum
  kGreedy,              // V2-Lite: no groups, no bias
};

enum class WeightFormat {
  kBf16,          // every linear is bfloat16
  kFp8Block,      // linears are e4m3 with FP32 scales of 128x128 blocks
  kFp8BlockUe8m0  // the same, scales (also those of activations) are powers of two
};

// YaRN position scaling; absent (nullopt) means plain RoPE.
struct YarnConfig {
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 0.0;
  uint32_t original_max_position_embeddings = 4096;  // absent: max_position_embeddings
};

struct ModelConfig {
  std::string architecture;  // e.g. "DeepseekV3ForCausalLM"
  std::string model_type;    // e.g. "deepseek_v3"

  uint32_t vocab_size = 0;
  uint32_t hidden_size = 0;
  uint32_t intermediate_size = 0;      // dense MLP width
  uint32_t moe_intermediate_size = 0;  // width of one routed expert
  uint32_t num_hidden_layers = 0;
  uint32_t first_k_dense_replace = 0;  // layers below this index have a dense MLP
  uint32_t moe_layer_freq = 1;         // layer i >= first_k_dense is MoE when i % freq == 0

  uint32_t num_attention_heads = 0;
  uint32_t q_lora_rank = 0;  // 0: the query is one direct projection (q_proj)
  uint32_t kv_lora_rank = 0;
  uint32_t qk_nope_head_dim = 0;
  uint32_t qk_rope_head_dim = 0;
  uint32_t v_head_dim = 0;

  uint32_t n_routed_experts = 0;  // 0: every layer is dense
  uint32_t num_experts_per_tok = 0;
  uint32_t n_shared_experts = 0;
  uint32_t n_group = 1;  // 1, whatever the file says, under kGreedy, which never looks at groups
  uint32_t topk_group = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;
  GateScore scoring_func = GateScore::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;

  uint32_t num_nextn_predict_layers = 0;  // MTP layers that follow the main ones in the checkpoint
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  bool rope_interleave = true;  // channel pairs are (2i, 2i+1); false: (i, i + dim/2)
  std::optional<YarnConfig> yarn;
  uint32_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  std::optional<uint32_t> bos_token_id;
  std::vector<uint32_t> eos_token_ids;

  WeightFormat weight_format = WeightFormat::kBf16;

  // q_a_layernorm and kv_a_layernorm use this whatever rms_norm_eps says (DeepSeek's code and
  // transformers both do).
  static constexpr double kInnerNormEps = 1e-6;
  // FP8 scale blocks are 128x128; any other weight_block_size is refused.
  static constexpr uint32_t kFp8Block = 128;

  [[nodiscard]] uint32_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  [[nodiscard]] uint32_t cache_row_elems() const { return kv_lora_rank + qk_rope_head_dim; }
  [[nodiscard]] uint32_t shared_intermediate_size() const {
    return n_shared_experts * moe_intermediate_size;
  }
  [[nodiscard]] bool is_fp8() const { return weight_format != WeightFormat::kBf16; }
  [[nodiscard]] bool is_moe_layer(uint32_t layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  // (qk_nope + qk_rope)^-0.5, times mscale(factor, mscale_all_dim)^2 under YaRN.
  [[nodiscard]] double softmax_scale() const;
  // Factor on cos and sin: mscale(factor, mscale) / mscale(factor, mscale_all_dim); 1 without YaRN.
  [[nodiscard]] double rope_amplitude() const;
  // Inverse frequencies [qk_rope_head_dim / 2] in radians per position, YaRN applied.
  [[nodiscard]] std::vector<double> rope_inverse_frequencies() const;
};

// Parses and validates the text of a config.json. `name` (a path) starts every message. Sizes must
// be present; switches that are absent take the family's defaults; unknown fields are ignored.
// Errors: kMalformed for broken JSON, absent, contradictory or overflowing fields; kUnsupported for
// an architecture that is not of this family (named in the message) or an option not implemented.
[[nodiscard]] Result<ModelConfig> parse_config(std::string_view json, const std::string& name);

// parse_config over DIR/config.json. Errors: kIo as well.
[[nodiscard]] Result<ModelConfig> load_config(const std::filesystem::path& model_dir);

}  // namespace hadal::model
