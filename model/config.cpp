// One reader per group of fields; long because the family has many switches, and reading one next
// to its rule is what keeps a message true.
#include "hadal/model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <new>
#include <numbers>
#include <utility>

#include "json_fields.h"
#include "mapped_file.h"

namespace hadal::model {
namespace {

// Bounds on what a config may ask for: at least 8 times the largest published model, and small
// enough that every product of two fields fits 32 bits where ModelConfig multiplies in 32 bits
// (heads x head dim, shared experts x width) and that the bytes of all weights fit 64.
constexpr Range<uint32_t> kVocab{1, 1u << 22};
constexpr Range<uint32_t> kHidden{1, 1u << 16};
constexpr Range<uint32_t> kWidth{1, 1u << 20};
constexpr Range<uint32_t> kLayers{1, 1u << 10};
constexpr Range<uint32_t> kMtpLayers{0, 16};
constexpr Range<uint32_t> kHeads{1, 1u << 12};
constexpr Range<uint32_t> kRank{1, 1u << 14};
constexpr Range<uint32_t> kHeadDim{1, 1u << 12};
constexpr Range<uint32_t> kExperts{0, 1u << 12};
constexpr Range<uint32_t> kSharedExperts{0, 1u << 6};
constexpr Range<uint32_t> kPositions{1, 1u << 27};
constexpr size_t kMaxConfigBytes = 16u << 20;

// Bounds of real numbers: what keeps a float32 neither zero, infinite nor without meaning.
constexpr Range<double> kEps{1e-30, 1.0};
constexpr Range<double> kTheta{2.0, 1e12};
constexpr Range<double> kScale{1e-6, 1e6};
constexpr Range<double> kYarnFactor{1.0, 1e6};
constexpr Range<double> kYarnBeta{1e-3, 1e6};
constexpr Range<double> kYarnMscale{0.0, 100.0};

// What transformers' DeepseekV2Config and DeepseekV3Config assume for an absent field.
struct FamilyDefaults {
  GateScore scoring_func;
  TopkMethod topk_method;
  bool norm_topk_prob;
  double routed_scaling_factor;
  uint32_t first_k_dense_replace;
  uint32_t n_shared_experts;
};
constexpr FamilyDefaults kV2Defaults{GateScore::kSoftmax, TopkMethod::kGreedy, false, 1.0, 0, 2};
constexpr FamilyDefaults kV3Defaults{GateScore::kSigmoid, TopkMethod::kNoauxTc, true, 2.5, 3, 1};

bool is_v2(const ModelConfig& config) {
  return config.architecture == "DeepseekV2ForCausalLM";
}

// DeepSeek's mscale: how much longer contexts sharpen the softmax.
double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

std::string_view unsupported_architecture(std::string_view architecture) {
  if (architecture.starts_with("DeepseekV32")) {
    return " (the V3.2 sparse attention indexer is not implemented)";
  }
  if (architecture.starts_with("DeepseekV4")) {
    return " (V4's hyper-connections and compressed sparse attention are not implemented)";
  }
  return "";
}

Status read_architecture(const JsonFields& fields, ModelConfig& config) {
  const Json* names = fields.find("architectures");
  if (names == nullptr) {
    return fields.error(Errc::kMalformed, "architectures", "must be present", "nothing");
  }
  if (!names->is_array() || names->size() != 1 || !names->front().is_string()) {
    return fields.refuse(Errc::kMalformed, "architectures", "must be a list of one name", *names);
  }
  config.architecture = names->front().get<std::string>();
  const bool v2 = is_v2(config);
  if (!v2 && config.architecture != "DeepseekV3ForCausalLM") {
    return fields.error(
        Errc::kUnsupported, "architectures",
        "must be DeepseekV3ForCausalLM or DeepseekV2ForCausalLM",
        in_quotes(config.architecture).append(unsupported_architecture(config.architecture)));
  }
  HADAL_TRY(fields.require("model_type", config.model_type));
  const bool right = v2 ? config.model_type == "deepseek_v2"
                        : config.model_type == "deepseek_v3" || config.model_type == "kimi_k2";
  if (!right) {
    return fields.error(Errc::kUnsupported, "model_type",
                        v2 ? "must be deepseek_v2 for DeepseekV2ForCausalLM"
                           : "must be deepseek_v3 or kimi_k2 for DeepseekV3ForCausalLM",
                        in_quotes(config.model_type));
  }
  return {};
}

Status read_sizes(const JsonFields& fields, ModelConfig& config) {
  HADAL_TRY(fields.require("vocab_size", kVocab, config.vocab_size));
  HADAL_TRY(fields.require("hidden_size", kHidden, config.hidden_size));
  HADAL_TRY(fields.require("intermediate_size", kWidth, config.intermediate_size));
  HADAL_TRY(fields.require("num_hidden_layers", kLayers, config.num_hidden_layers));
  HADAL_TRY(fields.read("num_nextn_predict_layers", kMtpLayers, config.num_nextn_predict_layers));
  HADAL_TRY(fields.require("max_position_embeddings", kPositions, config.max_position_embeddings));
  HADAL_TRY(fields.read("rms_norm_eps", kEps, config.rms_norm_eps));
  HADAL_TRY(fields.read("tie_word_embeddings", config.tie_word_embeddings));
  return {};
}

Status read_attention(const JsonFields& fields, ModelConfig& config) {
  HADAL_TRY(fields.require("num_attention_heads", kHeads, config.num_attention_heads));
  // Required, although transformers has a default: null and absent mean different models.
  if (fields.find("q_lora_rank") == nullptr || fields.find_set("q_lora_rank") != nullptr) {
    HADAL_TRY(fields.require("q_lora_rank", kRank, config.q_lora_rank));
  }
  HADAL_TRY(fields.require("kv_lora_rank", kRank, config.kv_lora_rank));
  HADAL_TRY(fields.require("qk_nope_head_dim", kHeadDim, config.qk_nope_head_dim));
  HADAL_TRY(fields.require("qk_rope_head_dim", kHeadDim, config.qk_rope_head_dim));
  HADAL_TRY(fields.require("v_head_dim", kHeadDim, config.v_head_dim));
  if (config.qk_rope_head_dim % 2 != 0) {
    return fields.error(Errc::kMalformed, "qk_rope_head_dim", "must be even",
                        std::to_string(config.qk_rope_head_dim));
  }
  uint32_t kv_heads = config.num_attention_heads;
  HADAL_TRY(fields.read("num_key_value_heads", kHeads, kv_heads));
  if (kv_heads != config.num_attention_heads) {
    return fields.error(Errc::kUnsupported, "num_key_value_heads", "must equal num_attention_heads",
                        fmt::format("{} and {}", kv_heads, config.num_attention_heads));
  }
  return {};
}

// Switches of transformers that exist in the family's configs but never vary.
Status check_fixed_switches(const JsonFields& fields) {
  std::string hidden_act = "silu";
  HADAL_TRY(fields.read("hidden_act", hidden_act));
  if (hidden_act != "silu") {
    return fields.error(Errc::kUnsupported, "hidden_act", "must be silu", in_quotes(hidden_act));
  }
  for (const std::string_view key : {"attention_bias", "mlp_bias"}) {
    bool bias = false;
    HADAL_TRY(fields.read(key, bias));
    if (bias) return fields.error(Errc::kUnsupported, key, "must be false", "true");
  }
  // transformers 4 wrote torch_dtype, transformers 5 writes dtype.
  for (const std::string_view key : {"torch_dtype", "dtype"}) {
    std::string dtype = "bfloat16";
    HADAL_TRY(fields.read(key, dtype));
    if (dtype != "bfloat16") {
      return fields.error(Errc::kUnsupported, key, "must be bfloat16", in_quotes(dtype));
    }
  }
  return {};
}

Status read_gate(const JsonFields& fields, ModelConfig& config) {
  std::string score = config.scoring_func == GateScore::kSigmoid ? "sigmoid" : "softmax";
  HADAL_TRY(fields.read("scoring_func", score));
  if (score != "sigmoid" && score != "softmax") {
    return fields.error(Errc::kUnsupported, "scoring_func", "must be sigmoid or softmax",
                        in_quotes(score));
  }
  config.scoring_func = score == "sigmoid" ? GateScore::kSigmoid : GateScore::kSoftmax;

  std::string method = config.topk_method == TopkMethod::kNoauxTc ? "noaux_tc" : "greedy";
  HADAL_TRY(fields.read("topk_method", method));
  if (method != "noaux_tc" && method != "group_limited_greedy" && method != "greedy") {
    return fields.error(Errc::kUnsupported, "topk_method",
                        "must be noaux_tc, group_limited_greedy or greedy", in_quotes(method));
  }
  config.topk_method = method == "noaux_tc" ? TopkMethod::kNoauxTc
                       : method == "greedy" ? TopkMethod::kGreedy
                                            : TopkMethod::kGroupLimitedGreedy;
  // DeepSeek's code defines V3's selection for sigmoid scores and V2's for softmax, nothing else.
  const std::string_view wanted = method == "noaux_tc" ? "sigmoid" : "softmax";
  if (score != wanted) {
    return fields.error(Errc::kUnsupported, "scoring_func",
                        fmt::format("must be {} with topk_method {}", wanted, method),
                        in_quotes(score));
  }
  HADAL_TRY(fields.read("norm_topk_prob", config.norm_topk_prob));
  return fields.read("routed_scaling_factor", kScale, config.routed_scaling_factor);
}

Status check_groups(const JsonFields& fields, const ModelConfig& config) {
  const uint32_t experts = config.n_routed_experts;
  const auto refuse = [&](std::string_view key, std::string_view rule, uint32_t got,
                          std::string_view relation, uint32_t limit) {
    return fields.error(Errc::kMalformed, key, rule, fmt::format("{} {} {}", got, relation, limit));
  };
  if (experts % config.n_group != 0) {
    return refuse("n_routed_experts", "must be a multiple of n_group", experts, "and",
                  config.n_group);
  }
  const uint32_t group_experts = experts / config.n_group;
  if (config.topk_group > config.n_group) {
    return refuse("topk_group", "must be at most n_group", config.topk_group, ">", config.n_group);
  }
  if (config.num_experts_per_tok > config.topk_group * group_experts) {
    return refuse("num_experts_per_tok", "must be at most topk_group x experts per group",
                  config.num_experts_per_tok, ">", config.topk_group * group_experts);
  }
  // A group's score is the sum of its two best experts.
  if (config.topk_method == TopkMethod::kNoauxTc && config.n_group > 1 && group_experts < 2) {
    return refuse("n_group", "must leave at least 2 experts per group with noaux_tc",
                  config.n_group, "groups of", group_experts);
  }
  return {};
}

Status read_experts(const JsonFields& fields, ModelConfig& config) {
  const FamilyDefaults& defaults = is_v2(config) ? kV2Defaults : kV3Defaults;
  if (fields.find("n_routed_experts") == nullptr ||
      fields.find_set("n_routed_experts") != nullptr) {
    HADAL_TRY(fields.require("n_routed_experts", kExperts, config.n_routed_experts));
  }
  if (config.n_routed_experts == 0) return {};  // every layer is dense, the rest has no meaning

  config.first_k_dense_replace =
      fields.find("first_k_dense_replace") == nullptr ? defaults.first_k_dense_replace : 0;
  HADAL_TRY(fields.read("first_k_dense_replace", {0, kLayers.most}, config.first_k_dense_replace));
  if (config.first_k_dense_replace > config.num_hidden_layers) {
    return fields.error(
        Errc::kMalformed, "first_k_dense_replace", "must be at most num_hidden_layers",
        fmt::format("{} > {}", config.first_k_dense_replace, config.num_hidden_layers));
  }
  HADAL_TRY(fields.read("moe_layer_freq", kLayers, config.moe_layer_freq));
  HADAL_TRY(fields.require("moe_intermediate_size", kWidth, config.moe_intermediate_size));
  config.n_shared_experts =
      fields.find("n_shared_experts") == nullptr ? defaults.n_shared_experts : 0;
  HADAL_TRY(fields.read("n_shared_experts", kSharedExperts, config.n_shared_experts));

  const Range<uint32_t> some{1, kExperts.most};
  HADAL_TRY(fields.require("num_experts_per_tok", some, config.num_experts_per_tok));
  if (config.num_experts_per_tok > config.n_routed_experts) {
    return fields.error(
        Errc::kMalformed, "num_experts_per_tok", "must be at most n_routed_experts",
        fmt::format("{} > {}", config.num_experts_per_tok, config.n_routed_experts));
  }
  config.scoring_func = defaults.scoring_func;
  config.topk_method = defaults.topk_method;
  config.norm_topk_prob = defaults.norm_topk_prob;
  config.routed_scaling_factor = defaults.routed_scaling_factor;
  HADAL_TRY(read_gate(fields, config));
  HADAL_TRY(fields.read("n_group", some, config.n_group));
  HADAL_TRY(fields.read("topk_group", some, config.topk_group));
  HADAL_TRY(check_groups(fields, config));
  // DeepSeek's greedy selection never looks at groups; nobody after us has to remember that.
  if (config.topk_method == TopkMethod::kGreedy) config.n_group = config.topk_group = 1;
  return {};
}

// "type" in the first configs, "rope_type" since transformers 4.45, sometimes both.
Status read_rope_type(const JsonFields& scaling, std::string& type) {
  type = "default";
  HADAL_TRY(scaling.read("type", type));
  const std::string old_type = type;
  HADAL_TRY(scaling.read("rope_type", type));
  if (scaling.find_set("type") != nullptr && old_type != type) {
    return scaling.error(Errc::kMalformed, "rope_type", "must agree with type",
                         in_quotes(type) + " and " + in_quotes(old_type));
  }
  if (type != "default" && type != "yarn") {
    return scaling.error(Errc::kUnsupported, "rope_type", "must be yarn or default",
                         in_quotes(type));
  }
  return {};
}

Status read_yarn(const JsonFields& scaling, const ModelConfig& config, YarnConfig& yarn) {
  HADAL_TRY(scaling.require("factor", kYarnFactor, yarn.factor));
  HADAL_TRY(scaling.read("beta_fast", kYarnBeta, yarn.beta_fast));
  HADAL_TRY(scaling.read("beta_slow", kYarnBeta, yarn.beta_slow));
  HADAL_TRY(scaling.read("mscale", kYarnMscale, yarn.mscale));
  HADAL_TRY(scaling.read("mscale_all_dim", kYarnMscale, yarn.mscale_all_dim));
  yarn.original_max_position_embeddings = config.max_position_embeddings;
  HADAL_TRY(scaling.read("original_max_position_embeddings", kPositions,
                         yarn.original_max_position_embeddings));
  if (yarn.beta_slow > yarn.beta_fast) {
    return scaling.error(Errc::kMalformed, "beta_slow", "must be at most beta_fast",
                         fmt::format("{:g} > {:g}", yarn.beta_slow, yarn.beta_fast));
  }
  // Two options of transformers that no model of the family uses and that change every angle.
  if (const Json* factor = scaling.find_set("attention_factor")) {
    return scaling.refuse(Errc::kUnsupported, "attention_factor", "must be absent", *factor);
  }
  bool truncate = true;
  HADAL_TRY(scaling.read("truncate", truncate));
  if (!truncate) return scaling.error(Errc::kUnsupported, "truncate", "must be true", "false");
  return {};
}

// transformers 4: rope_theta and rope_scaling; transformers 5: both inside rope_parameters. A file
// that went through both may hold all of them, and then they must agree.
Status read_rope(const JsonFields& fields, ModelConfig& config) {
  HADAL_TRY(fields.read("rope_interleave", config.rope_interleave));
  HADAL_TRY(fields.read("rope_theta", kTheta, config.rope_theta));
  bool scaled = false;
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    if (fields.find_set(key) == nullptr) continue;
    HADAL_ASSIGN(const JsonFields scaling, fields.object(key));
    double theta = config.rope_theta;
    HADAL_TRY(scaling.read("rope_theta", kTheta, theta));
    if (fields.find_set("rope_theta") != nullptr && theta != config.rope_theta) {
      return scaling.error(Errc::kMalformed, "rope_theta", "must agree with the outer rope_theta",
                           fmt::format("{:g} and {:g}", theta, config.rope_theta));
    }
    config.rope_theta = theta;
    std::string type;
    HADAL_TRY(read_rope_type(scaling, type));
    if (type != "yarn" || scaled) continue;  // transformers: rope_scaling goes first
    config.yarn.emplace();
    HADAL_TRY(read_yarn(scaling, config, *config.yarn));
    scaled = true;
  }
  return {};
}

Status read_quantization(const JsonFields& fields, ModelConfig& config) {
  if (fields.find_set("quantization_config") == nullptr) return {};
  HADAL_ASSIGN(const JsonFields quantization, fields.object("quantization_config"));
  std::string method;
  std::string format = "e4m3";
  std::string activations = "dynamic";
  std::string scales = "float";
  HADAL_TRY(quantization.require("quant_method", method));
  if (method != "fp8") {
    return quantization.error(Errc::kUnsupported, "quant_method", "must be fp8", in_quotes(method));
  }
  HADAL_TRY(quantization.read("fmt", format));
  if (format != "e4m3") {
    return quantization.error(Errc::kUnsupported, "fmt", "must be e4m3", in_quotes(format));
  }
  HADAL_TRY(quantization.read("activation_scheme", activations));
  if (activations != "dynamic") {
    return quantization.error(Errc::kUnsupported, "activation_scheme", "must be dynamic",
                              in_quotes(activations));
  }
  // No default: elsewhere an absent block size means one scale per tensor.
  const Json* block = quantization.find("weight_block_size");
  const Json wanted = {ModelConfig::kFp8Block, ModelConfig::kFp8Block};
  if (block == nullptr) {
    return quantization.error(Errc::kMalformed, "weight_block_size", "must be present", "nothing");
  }
  if (*block != wanted) {
    return quantization.refuse(Errc::kUnsupported, "weight_block_size", "must be [128,128]",
                               *block);
  }
  HADAL_TRY(quantization.read("scale_fmt", scales));
  if (scales != "float" && scales != "ue8m0") {
    return quantization.error(Errc::kUnsupported, "scale_fmt", "must be ue8m0 or float",
                              in_quotes(scales));
  }
  config.weight_format = scales == "ue8m0" ? WeightFormat::kFp8BlockUe8m0 : WeightFormat::kFp8Block;
  return {};
}

Status read_token_ids(const JsonFields& fields, ModelConfig& config) {
  const Range<uint32_t> ids{0, config.vocab_size - 1};
  if (fields.find_set("bos_token_id") != nullptr) {
    HADAL_TRY(fields.require("bos_token_id", ids, config.bos_token_id.emplace()));
  }
  return fields.read("eos_token_id", ids, config.eos_token_ids);
}

Result<ModelConfig> parse_document(std::string_view json, const std::string& name) {
  if (json.size() > kMaxConfigBytes) {
    return Status(Errc::kMalformed, fmt::format("{}: text must be at most {} bytes, got {}", name,
                                                kMaxConfigBytes, json.size()));
  }
  HADAL_ASSIGN(const Json document, parse_json(json, name));
  HADAL_ASSIGN(const JsonFields fields, JsonFields::of(document, name));
  ModelConfig config;
  HADAL_TRY(read_architecture(fields, config));
  HADAL_TRY(read_sizes(fields, config));
  HADAL_TRY(read_attention(fields, config));
  HADAL_TRY(check_fixed_switches(fields));
  HADAL_TRY(read_experts(fields, config));
  HADAL_TRY(read_rope(fields, config));
  HADAL_TRY(read_quantization(fields, config));
  HADAL_TRY(read_token_ids(fields, config));
  return config;
}

}  // namespace

double ModelConfig::softmax_scale() const {
  // 192 in V3, also in the absorbed form whose keys are 576 wide.
  const double scale = 1.0 / std::sqrt(static_cast<double>(qk_head_dim()));
  if (!yarn) return scale;
  const double mscale = yarn_mscale(yarn->factor, yarn->mscale_all_dim);
  return scale * mscale * mscale;
}

double ModelConfig::rope_amplitude() const {
  if (!yarn) return 1.0;
  return yarn_mscale(yarn->factor, yarn->mscale) / yarn_mscale(yarn->factor, yarn->mscale_all_dim);
}

std::vector<double> ModelConfig::rope_inverse_frequencies() const {
  const double dim = qk_rope_head_dim;
  std::vector<double> frequencies(qk_rope_head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(rope_theta, -2.0 * static_cast<double>(i) / dim);
  }
  if (!yarn) return frequencies;

  // The channel that turns `rotations` times over the original context.
  const auto channel = [&](double rotations) {
    const double length = yarn->original_max_position_embeddings;
    return dim * std::log(length / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope_theta));
  };
  const double low = std::max(std::floor(channel(yarn->beta_fast)), 0.0);
  double high = std::min(std::ceil(channel(yarn->beta_slow)), dim - 1.0);
  if (low == high) high += 0.001;  // as DeepSeek's code: a step instead of a division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    // Channels that turn often keep their frequency, slow ones are stretched by the factor.
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= (1.0 - ramp) + ramp / yarn->factor;
  }
  return frequencies;
}

Result<ModelConfig> parse_config(std::string_view json, const std::string& name) {
  try {
    return parse_document(json, name);
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory, name);
  } catch (const std::exception& e) {  // the JSON library's; none is expected
    return Status(Errc::kInternal, name + ": " + e.what());
  }
}

Result<ModelConfig> load_config(const std::filesystem::path& model_dir) {
  HADAL_ASSIGN(const MappedFile file, MappedFile::open(model_dir / "config.json"));
  return parse_config(file.text(), file.path());
}

}  // namespace hadal::model
