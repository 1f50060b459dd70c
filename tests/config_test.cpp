// hadal::model::parse_config: the published configs, YaRN's numbers, and every refusal by message.
// Long because every published config stands here whole and every refusal has its exact text.
#include "hadal/model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/fuzz.h"
#include "support/safetensors_writer.h"

namespace hadal::model {
namespace {

using ::hadal::testing::FuzzRounds;
using ::hadal::testing::TempDir;
using ::hadal::testing::write_file;
using Json = nlohmann::json;

// The configs as published, without the fields that only training reads.
constexpr const char* kV3 = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
  "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3,
  "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02,
  "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
  "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
  "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
  "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
  "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                          "weight_block_size": [128, 128]},
  "rms_norm_eps": 1e-06,
  "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                   "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                   "type": "yarn"},
  "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
  "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc",
  "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": true,
  "v_head_dim": 128, "vocab_size": 129280})";

constexpr const char* kMoonlight = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "bos_token_id": 163584,
  "eos_token_id": 163585, "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048,
  "intermediate_size": 11264, "kv_lora_rank": 512, "max_position_embeddings": 8192,
  "model_type": "deepseek_v3", "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1,
  "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": true,
  "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
  "num_key_value_heads": 16, "num_nextn_predict_layers": 0, "q_lora_rank": null,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-05, "rope_scaling": null,
  "rope_theta": 50000.0, "routed_scaling_factor": 2.446, "scoring_func": "sigmoid",
  "tie_word_embeddings": false, "topk_group": 1, "topk_method": "noaux_tc",
  "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 163840})";

constexpr const char* kKimiK2 = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "bos_token_id": 163584,
  "eos_token_id": 163585, "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 7168,
  "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 131072,
  "model_type": "kimi_k2", "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 1,
  "n_routed_experts": 384, "n_shared_experts": 1, "norm_topk_prob": true,
  "num_attention_heads": 64, "num_experts_per_tok": 8, "num_hidden_layers": 61,
  "num_key_value_heads": 64, "num_nextn_predict_layers": 0, "q_lora_rank": 1536,
  "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                          "weight_block_size": [128, 128]},
  "rms_norm_eps": 1e-06,
  "rope_scaling": {"beta_fast": 1.0, "beta_slow": 1.0, "factor": 32.0, "mscale": 1.0,
                   "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                   "type": "yarn"},
  "rope_theta": 50000.0, "routed_scaling_factor": 2.827, "scoring_func": "sigmoid",
  "tie_word_embeddings": false, "topk_group": 1, "topk_method": "noaux_tc",
  "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 163840})";

constexpr const char* kV2 = R"({
  "architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false, "bos_token_id": 100000,
  "eos_token_id": 100001, "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 5120,
  "intermediate_size": 12288, "kv_lora_rank": 512, "max_position_embeddings": 163840,
  "model_type": "deepseek_v2", "moe_intermediate_size": 1536, "moe_layer_freq": 1, "n_group": 8,
  "n_routed_experts": 160, "n_shared_experts": 2, "norm_topk_prob": false,
  "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 60,
  "num_key_value_heads": 128, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
  "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
  "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
                   "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096,
                   "type": "yarn"},
  "rope_theta": 10000, "routed_scaling_factor": 16.0, "scoring_func": "softmax",
  "tie_word_embeddings": false, "topk_group": 3, "topk_method": "group_limited_greedy",
  "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 102400})";

Json v3() {
  return Json::parse(kV3);
}

Json v31() {
  Json config = v3();
  config["quantization_config"]["scale_fmt"] = "ue8m0";
  return config;
}

Json v2_lite() {
  Json config = Json::parse(kV2);
  config.update(Json::parse(R"({
    "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_group": 1,
    "n_routed_experts": 64, "num_attention_heads": 16, "num_hidden_layers": 27,
    "num_key_value_heads": 16, "q_lora_rank": null, "routed_scaling_factor": 1.0,
    "topk_group": 1, "topk_method": "greedy"})"));
  return config;
}

// As transformers 5 saves V3: no rope_theta, rope_scaling and torch_dtype.
Json v3_transformers5() {
  Json config = v3();
  config["rope_parameters"] = config["rope_scaling"];
  config["rope_parameters"]["rope_type"] = "yarn";
  config["rope_parameters"]["rope_theta"] = 10000.0;
  config["dtype"] = "bfloat16";
  for (const char* key : {"rope_theta", "rope_scaling", "torch_dtype"}) config.erase(key);
  return config;
}

ModelConfig parsed(const Json& json) {
  auto config = parse_config(json.dump(), "config.json");
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : ModelConfig();
}

TEST(Config, DeepseekV3) {
  const ModelConfig config = parsed(v3());
  EXPECT_EQ(config.architecture, "DeepseekV3ForCausalLM");
  EXPECT_EQ(config.model_type, "deepseek_v3");
  EXPECT_EQ(config.vocab_size, 129280u);
  EXPECT_EQ(config.hidden_size, 7168u);
  EXPECT_EQ(config.intermediate_size, 18432u);
  EXPECT_EQ(config.moe_intermediate_size, 2048u);
  EXPECT_EQ(config.num_hidden_layers, 61u);
  EXPECT_EQ(config.num_attention_heads, 128u);
  EXPECT_EQ(config.q_lora_rank, 1536u);
  EXPECT_EQ(config.qk_head_dim(), 192u);
  EXPECT_EQ(config.cache_row_elems(), 576u);
  EXPECT_EQ(config.v_head_dim, 128u);
  EXPECT_EQ(config.n_routed_experts, 256u);
  EXPECT_EQ(config.num_experts_per_tok, 8u);
  EXPECT_EQ(config.shared_intermediate_size(), 2048u);
  EXPECT_EQ(config.n_group, 8u);
  EXPECT_EQ(config.topk_group, 4u);
  EXPECT_TRUE(config.norm_topk_prob);
  EXPECT_EQ(config.routed_scaling_factor, 2.5);
  EXPECT_EQ(config.scoring_func, GateScore::kSigmoid);
  EXPECT_EQ(config.topk_method, TopkMethod::kNoauxTc);
  EXPECT_EQ(config.num_nextn_predict_layers, 1u);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.max_position_embeddings, 163840u);
  EXPECT_TRUE(config.rope_interleave);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 0u);
  EXPECT_EQ(config.eos_token_ids, (std::vector<uint32_t>{1}));
  EXPECT_EQ(config.weight_format, WeightFormat::kFp8Block);
  EXPECT_FALSE(config.is_moe_layer(2));
  EXPECT_TRUE(config.is_moe_layer(3));
  EXPECT_TRUE(config.is_moe_layer(61));  // the MTP layer
}

TEST(Config, DeepseekV31DiffersInItsScales) {
  EXPECT_EQ(parsed(v31()).weight_format, WeightFormat::kFp8BlockUe8m0);
}

TEST(Config, Moonlight) {
  const ModelConfig config = parsed(Json::parse(kMoonlight));
  EXPECT_EQ(config.q_lora_rank, 0u);
  EXPECT_EQ(config.n_group, 1u);
  EXPECT_EQ(config.shared_intermediate_size(), 2816u);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope_theta, 50000.0);
  EXPECT_FALSE(config.yarn.has_value());
  EXPECT_EQ(config.weight_format, WeightFormat::kBf16);
  EXPECT_DOUBLE_EQ(config.softmax_scale(), 1.0 / std::sqrt(192.0));
  EXPECT_EQ(config.rope_amplitude(), 1.0);
}

TEST(Config, KimiK2) {
  const ModelConfig config = parsed(Json::parse(kKimiK2));
  EXPECT_EQ(config.model_type, "kimi_k2");
  EXPECT_EQ(config.num_attention_heads, 64u);
  EXPECT_EQ(config.n_routed_experts, 384u);
  EXPECT_EQ(config.yarn->factor, 32.0);
  EXPECT_EQ(config.yarn->beta_fast, 1.0);
  for (const double f : config.rope_inverse_frequencies()) EXPECT_GT(f, 0.0);
}

TEST(Config, DeepseekV2) {
  const ModelConfig config = parsed(Json::parse(kV2));
  EXPECT_EQ(config.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(config.scoring_func, GateScore::kSoftmax);
  EXPECT_EQ(config.n_group, 8u);
  EXPECT_EQ(config.topk_group, 3u);
  EXPECT_FALSE(config.norm_topk_prob);
  EXPECT_EQ(config.routed_scaling_factor, 16.0);
  EXPECT_EQ(config.num_nextn_predict_layers, 0u);
}

TEST(Config, DeepseekV2Lite) {
  const ModelConfig config = parsed(v2_lite());
  EXPECT_EQ(config.q_lora_rank, 0u);
  EXPECT_EQ(config.topk_method, TopkMethod::kGreedy);
  EXPECT_NEAR(config.softmax_scale(), 0.1147214, 5e-8);
  EXPECT_EQ(config.rope_amplitude(), 1.0);
}

TEST(Config, Transformers5SpellingMeansTheSame) {
  const ModelConfig four = parsed(v3());
  const ModelConfig five = parsed(v3_transformers5());
  EXPECT_EQ(five.rope_theta, four.rope_theta);
  EXPECT_EQ(five.rope_inverse_frequencies(), four.rope_inverse_frequencies());
  EXPECT_EQ(five.softmax_scale(), four.softmax_scale());
  Json plain = v3_transformers5();
  plain["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 50000.0}};
  EXPECT_FALSE(parsed(plain).yarn.has_value());
  EXPECT_EQ(parsed(plain).rope_theta, 50000.0);
}

TEST(Config, YarnOfV3HasThePublishedNumbers) {
  const ModelConfig config = parsed(v3());
  EXPECT_NEAR(config.softmax_scale(), 0.1352338, 5e-8);
  EXPECT_EQ(config.rope_amplitude(), 1.0);
  const std::vector<double> f = config.rope_inverse_frequencies();
  ASSERT_EQ(f.size(), 32u);
  // Channels to 10 keep their frequency, channels from 23 are stretched 40 times, a ramp between.
  for (int i = 0; i < 32; ++i) {
    const double plain = std::pow(10000.0, -2.0 * i / 64);
    const double ramp = i <= 10 ? 0.0 : i >= 23 ? 1.0 : (i - 10) / 13.0;
    EXPECT_NEAR(f[i], plain * (1 - ramp) + plain / 40 * ramp, 1e-15) << i;
  }
  EXPECT_EQ(f[0], 1.0);
}

TEST(Config, YarnDefaultsAreThoseOfTransformers) {
  Json json = v3();
  json["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 4}};
  const ModelConfig config = parsed(json);
  ASSERT_TRUE(config.yarn.has_value());
  EXPECT_EQ(config.yarn->beta_fast, 32.0);
  EXPECT_EQ(config.yarn->beta_slow, 1.0);
  EXPECT_EQ(config.yarn->original_max_position_embeddings, 163840u);
  // mscale 1, mscale_all_dim 0: only cos and sin grow.
  EXPECT_DOUBLE_EQ(config.rope_amplitude(), 0.1 * std::log(4.0) + 1.0);
  EXPECT_DOUBLE_EQ(config.softmax_scale(), 1.0 / std::sqrt(192.0));
}

TEST(Config, AbsentSwitchesTakeTheFamilysDefaults) {
  const auto without = [](Json json) {
    for (const char* key : {"scoring_func",
                            "topk_method",
                            "norm_topk_prob",
                            "routed_scaling_factor",
                            "moe_layer_freq",
                            "n_group",
                            "topk_group",
                            "rms_norm_eps",
                            "rope_theta",
                            "rope_scaling",
                            "num_nextn_predict_layers",
                            "num_key_value_heads",
                            "hidden_act",
                            "attention_bias",
                            "torch_dtype",
                            "tie_word_embeddings",
                            "bos_token_id",
                            "eos_token_id",
                            "quantization_config",
                            "first_k_dense_replace",
                            "n_shared_experts"}) {
      json.erase(key);
    }
    return parsed(json);
  };
  const ModelConfig three = without(v3());
  EXPECT_EQ(three.scoring_func, GateScore::kSigmoid);
  EXPECT_EQ(three.topk_method, TopkMethod::kNoauxTc);
  EXPECT_TRUE(three.norm_topk_prob);
  EXPECT_EQ(three.routed_scaling_factor, 2.5);
  EXPECT_EQ(three.first_k_dense_replace, 3u);
  EXPECT_EQ(three.n_shared_experts, 1u);
  EXPECT_EQ(three.moe_layer_freq, 1u);
  EXPECT_EQ(three.n_group, 1u);
  EXPECT_EQ(three.topk_group, 1u);
  EXPECT_EQ(three.rms_norm_eps, 1e-6);
  EXPECT_EQ(three.rope_theta, 10000.0);
  EXPECT_FALSE(three.yarn.has_value());
  EXPECT_FALSE(three.bos_token_id.has_value());
  EXPECT_TRUE(three.eos_token_ids.empty());
  EXPECT_EQ(three.weight_format, WeightFormat::kBf16);
  EXPECT_EQ(without(Json::parse(kKimiK2)).topk_method, TopkMethod::kNoauxTc);
  const ModelConfig two = without(Json::parse(kV2));
  EXPECT_EQ(two.scoring_func, GateScore::kSoftmax);
  EXPECT_EQ(two.topk_method, TopkMethod::kGreedy);
  EXPECT_FALSE(two.norm_topk_prob);
  EXPECT_EQ(two.routed_scaling_factor, 1.0);
  EXPECT_EQ(two.first_k_dense_replace, 0u);
  EXPECT_EQ(two.n_shared_experts, 2u);
}

TEST(Config, NullMeansNone) {
  Json json = v3();
  for (const char* key : {"n_group", "topk_group", "q_lora_rank", "n_shared_experts",
                          "moe_layer_freq", "first_k_dense_replace", "quantization_config",
                          "rope_scaling", "eos_token_id", "bos_token_id"}) {
    json[key] = nullptr;
  }
  const ModelConfig config = parsed(json);
  EXPECT_EQ(config.n_group, 1u);
  EXPECT_EQ(config.q_lora_rank, 0u);
  EXPECT_EQ(config.n_shared_experts, 0u);
  EXPECT_EQ(config.first_k_dense_replace, 0u);
  EXPECT_EQ(config.moe_layer_freq, 1u);
  json["n_routed_experts"] = nullptr;
  json.erase("num_experts_per_tok");
  json.erase("moe_intermediate_size");
  EXPECT_FALSE(parsed(json).is_moe_layer(60));
}

TEST(Config, GreedySelectionHasNoGroups) {
  Json json = v2_lite();
  json["n_group"] = 8;
  json["topk_group"] = 3;
  EXPECT_EQ(parsed(json).n_group, 1u);
  EXPECT_EQ(parsed(json).topk_group, 1u);
}

TEST(Config, EosMayBeAList) {
  Json json = v3();
  json["eos_token_id"] = {1, 5};
  EXPECT_EQ(parsed(json).eos_token_ids, (std::vector<uint32_t>{1, 5}));
}

TEST(Config, UnknownFieldsAreIgnored) {
  Json json = v3();
  json["a_new_field"] = {{"x", {1, 2}}};
  parsed(json);
}

TEST(Config, TheConfigsOfThisProjectLoad) {
  const std::filesystem::path root = HADAL_SOURCE_DIR;
  std::vector<std::filesystem::path> dirs = {root / "examples/models/fables"};
  for (const auto& entry : std::filesystem::directory_iterator(root / "tests/golden")) {
    if (std::filesystem::exists(entry.path() / "config.json")) dirs.push_back(entry.path());
  }
  EXPECT_GE(dirs.size(), 6u);
  for (const auto& dir : dirs) {
    const auto config = load_config(dir);
    EXPECT_TRUE(config.ok()) << config.status().message();
  }
}

struct Refusal {
  const char* field;  // JSON pointer into V3's config
  const char* value;  // nullptr: the field is removed
  Errc code;
  const char* message;  // after "config.json: "
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.field << " = " << (refusal.value == nullptr ? "absent" : refusal.value);
}

class ConfigRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(ConfigRefusal, NamesFieldRuleAndValue) {
  const Refusal& refusal = GetParam();
  Json json = v3();
  if (refusal.value != nullptr) {
    json[Json::json_pointer(refusal.field)] = Json::parse(refusal.value);
  } else {
    const Json::json_pointer field(refusal.field);
    json[field.parent_pointer()].erase(field.back());
  }
  const auto config = parse_config(json.dump(), "config.json");
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().message(), std::string("config.json: ") + refusal.message);
  EXPECT_EQ(errc_name(config.status().code()), errc_name(refusal.code));
}

constexpr Errc kBad = Errc::kMalformed;
constexpr Errc kNot = Errc::kUnsupported;

INSTANTIATE_TEST_SUITE_P(
    Absent, ConfigRefusal,
    ::testing::Values(
        Refusal{"/architectures", nullptr, kBad, "architectures must be present, got nothing"},
        Refusal{"/model_type", nullptr, kBad, "model_type must be present, got nothing"},
        Refusal{"/vocab_size", nullptr, kBad, "vocab_size must be present, got nothing"},
        Refusal{"/hidden_size", nullptr, kBad, "hidden_size must be present, got nothing"},
        Refusal{"/intermediate_size", nullptr, kBad,
                "intermediate_size must be present, got nothing"},
        Refusal{"/moe_intermediate_size", nullptr, kBad,
                "moe_intermediate_size must be present, got nothing"},
        Refusal{"/num_hidden_layers", nullptr, kBad,
                "num_hidden_layers must be present, got nothing"},
        Refusal{"/num_attention_heads", nullptr, kBad,
                "num_attention_heads must be present, got nothing"},
        Refusal{"/q_lora_rank", nullptr, kBad, "q_lora_rank must be present, got nothing"},
        Refusal{"/kv_lora_rank", nullptr, kBad, "kv_lora_rank must be present, got nothing"},
        Refusal{"/qk_nope_head_dim", nullptr, kBad,
                "qk_nope_head_dim must be present, got nothing"},
        Refusal{"/qk_rope_head_dim", nullptr, kBad,
                "qk_rope_head_dim must be present, got nothing"},
        Refusal{"/v_head_dim", nullptr, kBad, "v_head_dim must be present, got nothing"},
        Refusal{"/n_routed_experts", nullptr, kBad,
                "n_routed_experts must be present, got nothing"},
        Refusal{"/num_experts_per_tok", nullptr, kBad,
                "num_experts_per_tok must be present, got nothing"},
        Refusal{"/max_position_embeddings", nullptr, kBad,
                "max_position_embeddings must be present, got nothing"},
        Refusal{"/rope_scaling/factor", nullptr, kBad,
                "rope_scaling.factor must be present, got nothing"},
        Refusal{"/quantization_config/quant_method", nullptr, kBad,
                "quantization_config.quant_method must be present, got nothing"},
        Refusal{"/quantization_config/weight_block_size", nullptr, kBad,
                "quantization_config.weight_block_size must be present, got nothing"}));

INSTANTIATE_TEST_SUITE_P(
    WrongType, ConfigRefusal,
    ::testing::Values(
        Refusal{"/hidden_size", "\"7168\"", kBad,
                "hidden_size must be a whole number between 1 and 65536, got \"7168\""},
        Refusal{"/hidden_size", "7168.5", kBad,
                "hidden_size must be a whole number between 1 and 65536, got 7168.5"},
        Refusal{"/hidden_size", "-7168", kBad,
                "hidden_size must be a whole number between 1 and 65536, got -7168"},
        Refusal{"/hidden_size", "0", kBad,
                "hidden_size must be a whole number between 1 and 65536, got 0"},
        Refusal{"/hidden_size", "4294974464", kBad,
                "hidden_size must be a whole number between 1 and 65536, got 4294974464"},
        Refusal{"/hidden_size", "1e30", kBad,
                "hidden_size must be a whole number between 1 and 65536, got 1e+30"},
        Refusal{"/hidden_size", "null", kBad,
                "hidden_size must be a whole number between 1 and 65536, got null"},
        Refusal{"/hidden_size", "true", kBad,
                "hidden_size must be a whole number between 1 and 65536, got true"},
        Refusal{"/hidden_size", "{}", kBad,
                "hidden_size must be a whole number between 1 and 65536, got an object"},
        Refusal{"/hidden_size", "[1,2,3,4,5,6,7,8,9]", kBad,
                "hidden_size must be a whole number between 1 and 65536, got a list of 9"},
        Refusal{"/rms_norm_eps", "\"1e-6\"", kBad,
                "rms_norm_eps must be a number between 1e-30 and 1, got \"1e-6\""},
        Refusal{"/norm_topk_prob", "1", kBad, "norm_topk_prob must be true or false, got 1"},
        Refusal{"/norm_topk_prob", "null", kBad, "norm_topk_prob must be true or false, got null"},
        Refusal{"/model_type", "3", kBad, "model_type must be a string, got 3"},
        Refusal{"/rope_scaling", "[]", kBad, "rope_scaling must be an object, got []"},
        Refusal{"/quantization_config", "\"fp8\"", kBad,
                "quantization_config must be an object, got \"fp8\""},
        Refusal{"/architectures", "\"DeepseekV3ForCausalLM\"", kBad,
                "architectures must be a list of one name, got \"DeepseekV3ForCausalLM\""},
        Refusal{"/architectures", "[]", kBad, "architectures must be a list of one name, got []"},
        Refusal{"/eos_token_id", "\"1\"", kBad,
                "eos_token_id must be a whole number between 0 and 129279, got \"1\""},
        Refusal{"/eos_token_id", "[1,-1]", kBad,
                "eos_token_id must hold whole numbers between 0 and 129279, got -1"},
        Refusal{"/eos_token_id", "129280", kBad,
                "eos_token_id must be a whole number between 0 and 129279, got 129280"},
        Refusal{"/bos_token_id", "129280", kBad,
                "bos_token_id must be a whole number between 0 and 129279, got 129280"}));

INSTANTIATE_TEST_SUITE_P(
    OutOfRange, ConfigRefusal,
    ::testing::Values(
        Refusal{"/vocab_size", "0", kBad,
                "vocab_size must be a whole number between 1 and 4194304, got 0"},
        Refusal{"/intermediate_size", "1048577", kBad,
                "intermediate_size must be a whole number between 1 and 1048576, got 1048577"},
        Refusal{"/moe_intermediate_size", "0", kBad,
                "moe_intermediate_size must be a whole number between 1 and 1048576, got 0"},
        Refusal{"/num_hidden_layers", "1000000", kBad,
                "num_hidden_layers must be a whole number between 1 and 1024, got 1000000"},
        Refusal{"/num_nextn_predict_layers", "17", kBad,
                "num_nextn_predict_layers must be a whole number between 0 and 16, got 17"},
        Refusal{"/num_attention_heads", "4097", kBad,
                "num_attention_heads must be a whole number between 1 and 4096, got 4097"},
        Refusal{"/q_lora_rank", "0", kBad,
                "q_lora_rank must be a whole number between 1 and 16384, got 0"},
        Refusal{"/kv_lora_rank", "0", kBad,
                "kv_lora_rank must be a whole number between 1 and 16384, got 0"},
        Refusal{"/qk_nope_head_dim", "0", kBad,
                "qk_nope_head_dim must be a whole number between 1 and 4096, got 0"},
        Refusal{"/qk_rope_head_dim", "0", kBad,
                "qk_rope_head_dim must be a whole number between 1 and 4096, got 0"},
        Refusal{"/v_head_dim", "0", kBad,
                "v_head_dim must be a whole number between 1 and 4096, got 0"},
        Refusal{"/n_routed_experts", "4097", kBad,
                "n_routed_experts must be a whole number between 0 and 4096, got 4097"},
        Refusal{"/num_experts_per_tok", "0", kBad,
                "num_experts_per_tok must be a whole number between 1 and 4096, got 0"},
        Refusal{"/n_shared_experts", "65", kBad,
                "n_shared_experts must be a whole number between 0 and 64, got 65"},
        Refusal{"/n_group", "0", kBad, "n_group must be a whole number between 1 and 4096, got 0"},
        Refusal{"/topk_group", "0", kBad,
                "topk_group must be a whole number between 1 and 4096, got 0"},
        Refusal{"/moe_layer_freq", "0", kBad,
                "moe_layer_freq must be a whole number between 1 and 1024, got 0"},
        Refusal{"/max_position_embeddings", "0", kBad,
                "max_position_embeddings must be a whole number between 1 and 134217728, got 0"},
        Refusal{"/rms_norm_eps", "0", kBad,
                "rms_norm_eps must be a number between 1e-30 and 1, got 0"},
        Refusal{"/rms_norm_eps", "-1e-6", kBad,
                "rms_norm_eps must be a number between 1e-30 and 1, got -1e-06"},
        Refusal{"/rope_theta", "1", kBad, "rope_theta must be a number between 2 and 1e+12, got 1"},
        Refusal{"/rope_theta", "-10000", kBad,
                "rope_theta must be a number between 2 and 1e+12, got -10000"},
        Refusal{"/routed_scaling_factor", "0", kBad,
                "routed_scaling_factor must be a number between 1e-06 and 1e+06, got 0"},
        Refusal{"/rope_scaling/factor", "0.5", kBad,
                "rope_scaling.factor must be a number between 1 and 1e+06, got 0.5"},
        Refusal{"/rope_scaling/beta_fast", "0", kBad,
                "rope_scaling.beta_fast must be a number between 0.001 and 1e+06, got 0"},
        Refusal{"/rope_scaling/mscale", "-1", kBad,
                "rope_scaling.mscale must be a number between 0 and 100, got -1"},
        Refusal{"/rope_scaling/mscale_all_dim", "1e300", kBad,
                "rope_scaling.mscale_all_dim must be a number between 0 and 100, got 1e+300"},
        Refusal{"/rope_scaling/original_max_position_embeddings", "0", kBad,
                "rope_scaling.original_max_position_embeddings must be a whole number between 1 "
                "and 134217728, got 0"}));

INSTANTIATE_TEST_SUITE_P(
    Contradiction, ConfigRefusal,
    ::testing::Values(
        Refusal{"/num_experts_per_tok", "257", kBad,
                "num_experts_per_tok must be at most n_routed_experts, got 257 > 256"},
        Refusal{"/n_group", "7", kBad,
                "n_routed_experts must be a multiple of n_group, got 256 and 7"},
        Refusal{"/topk_group", "9", kBad, "topk_group must be at most n_group, got 9 > 8"},
        Refusal{
            "/num_experts_per_tok", "129", kBad,
            "num_experts_per_tok must be at most topk_group x experts per group, got 129 > 128"},
        Refusal{"/n_group", "256", kBad,
                "num_experts_per_tok must be at most topk_group x experts per group, got 8 > 4"},
        Refusal{"/first_k_dense_replace", "62", kBad,
                "first_k_dense_replace must be at most num_hidden_layers, got 62 > 61"},
        Refusal{"/qk_rope_head_dim", "63", kBad, "qk_rope_head_dim must be even, got 63"},
        Refusal{"/num_key_value_heads", "8", kNot,
                "num_key_value_heads must equal num_attention_heads, got 8 and 128"},
        Refusal{"/rope_scaling/beta_slow", "33", kBad,
                "rope_scaling.beta_slow must be at most beta_fast, got 33 > 32"},
        Refusal{"/rope_scaling/rope_type", "\"default\"", kBad,
                "rope_scaling.rope_type must agree with type, got \"default\" and \"yarn\""},
        Refusal{"/rope_parameters", R"({"rope_theta":50000.0})", kBad,
                "rope_parameters.rope_theta must agree with the outer rope_theta, got 50000 and "
                "10000"}));

INSTANTIATE_TEST_SUITE_P(
    Unsupported, ConfigRefusal,
    ::testing::Values(
        Refusal{"/architectures", R"(["LlamaForCausalLM"])", kNot,
                "architectures must be DeepseekV3ForCausalLM or DeepseekV2ForCausalLM, got "
                "\"LlamaForCausalLM\""},
        Refusal{
            "/architectures", R"(["DeepseekV32ForCausalLM"])", kNot,
            "architectures must be DeepseekV3ForCausalLM or DeepseekV2ForCausalLM, got "
            "\"DeepseekV32ForCausalLM\" (the V3.2 sparse attention indexer is not implemented)"},
        Refusal{"/architectures", R"(["DeepseekV4ForCausalLM"])", kNot,
                "architectures must be DeepseekV3ForCausalLM or DeepseekV2ForCausalLM, got "
                "\"DeepseekV4ForCausalLM\" (V4's hyper-connections and compressed sparse attention "
                "are not implemented)"},
        Refusal{"/architectures", R"(["DeepseekV2ForCausalLM"])", kNot,
                "model_type must be deepseek_v2 for DeepseekV2ForCausalLM, got \"deepseek_v3\""},
        Refusal{"/model_type", "\"deepseek_v32\"", kNot,
                "model_type must be deepseek_v3 or kimi_k2 for DeepseekV3ForCausalLM, got "
                "\"deepseek_v32\""},
        Refusal{"/hidden_act", "\"gelu\"", kNot, "hidden_act must be silu, got \"gelu\""},
        Refusal{"/attention_bias", "true", kNot, "attention_bias must be false, got true"},
        Refusal{"/mlp_bias", "true", kNot, "mlp_bias must be false, got true"},
        Refusal{"/torch_dtype", "\"float16\"", kNot,
                "torch_dtype must be bfloat16, got \"float16\""},
        Refusal{"/dtype", "\"float32\"", kNot, "dtype must be bfloat16, got \"float32\""},
        Refusal{"/scoring_func", "\"relu\"", kNot,
                "scoring_func must be sigmoid or softmax, got \"relu\""},
        Refusal{"/scoring_func", "\"softmax\"", kNot,
                "scoring_func must be sigmoid with topk_method noaux_tc, got \"softmax\""},
        Refusal{"/topk_method", "\"greedy\"", kNot,
                "scoring_func must be softmax with topk_method greedy, got \"sigmoid\""},
        Refusal{"/topk_method", "\"random\"", kNot,
                "topk_method must be noaux_tc, group_limited_greedy or greedy, got \"random\""},
        Refusal{"/rope_scaling/type", "\"linear\"", kNot,
                "rope_scaling.rope_type must be yarn or default, got \"linear\""},
        Refusal{"/rope_scaling/attention_factor", "1.5", kNot,
                "rope_scaling.attention_factor must be absent, got 1.5"},
        Refusal{"/rope_scaling/truncate", "false", kNot,
                "rope_scaling.truncate must be true, got false"},
        Refusal{"/quantization_config/quant_method", "\"gptq\"", kNot,
                "quantization_config.quant_method must be fp8, got \"gptq\""},
        Refusal{"/quantization_config/fmt", "\"e5m2\"", kNot,
                "quantization_config.fmt must be e4m3, got \"e5m2\""},
        Refusal{"/quantization_config/activation_scheme", "\"static\"", kNot,
                "quantization_config.activation_scheme must be dynamic, got \"static\""},
        Refusal{"/quantization_config/weight_block_size", "[64,128]", kNot,
                "quantization_config.weight_block_size must be [128,128], got [64,128]"},
        Refusal{"/quantization_config/weight_block_size", "null", kNot,
                "quantization_config.weight_block_size must be [128,128], got null"},
        Refusal{"/quantization_config/scale_fmt", "\"e4m3\"", kNot,
                "quantization_config.scale_fmt must be ue8m0 or float, got \"e4m3\""}));

std::string refusal_of_text(std::string_view text) {
  const auto config = parse_config(text, "config.json");
  return config.ok() ? "parsed" : config.status().message();
}

TEST(ConfigRefuses, GroupsOfOneExpertWithNoauxTc) {
  Json json = v3();
  json["n_group"] = 256;
  json["topk_group"] = 8;
  EXPECT_EQ(refusal_of_text(json.dump()),
            "config.json: n_group must leave at least 2 experts per group with noaux_tc, got 256 "
            "groups of 1");
}

TEST(ConfigRefuses, TextThatIsNotAJsonObject) {
  EXPECT_EQ(refusal_of_text(""), "config.json: text must be valid JSON, got an error at byte 1");
  EXPECT_EQ(refusal_of_text("{\"a\": NaN}"),
            "config.json: text must be valid JSON, got an error at byte 7");
  EXPECT_EQ(refusal_of_text("{\"a\": 1e999}"),
            "config.json: text must be valid JSON, got an error at byte 11");
  EXPECT_EQ(refusal_of_text("[1]"), "config.json: text must be an object, got [1]");
  EXPECT_EQ(refusal_of_text("{\"a\":1,\"a\":2}"),
            "config.json: every key must occur once in its object, got \"a\" twice");
  EXPECT_EQ(refusal_of_text(std::string(kV3) + std::string("\0x", 2)).substr(0, 39),
            "config.json: text must be valid JSON, g");
}

TEST(ConfigRefuses, DeepNesting) {
  EXPECT_EQ(refusal_of_text(std::string(1 << 20, '[')),
            "config.json: nesting must be at most 64 levels, got more");
  std::string objects;
  for (int i = 0; i < 65; ++i) objects += "{\"a\":";
  EXPECT_EQ(refusal_of_text(objects), "config.json: nesting must be at most 64 levels, got more");
}

TEST(ConfigRefuses, HugeTextAndCutsLongValues) {
  EXPECT_EQ(refusal_of_text(std::string((16u << 20) + 1, ' ')),
            "config.json: text must be at most 16777216 bytes, got 16777217");
  Json json = v3();
  json["hidden_act"] = std::string(1 << 20, 'x');
  EXPECT_EQ(refusal_of_text(json.dump()),
            "config.json: hidden_act must be silu, got \"" + std::string(76, 'x') + "\"...");
}

TEST(ConfigRefuses, ADirectoryWithoutAConfig) {
  TempDir dir;
  const auto config = load_config(dir.path());
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), Errc::kIo);
  EXPECT_EQ(
      config.status().message(),
      (dir / "config.json").string() + ": file must be readable, got No such file or directory");
  write_file(dir / "config.json", "");
  EXPECT_EQ(load_config(dir.path()).status().code(), Errc::kMalformed);
}

// Whatever parses must be safe to multiply and divide with.
void check_invariants(const ModelConfig& config) {
  ASSERT_GT(config.vocab_size, 0u);
  ASSERT_GT(config.moe_layer_freq, 0u);
  ASSERT_GT(config.n_group, 0u);
  ASSERT_EQ(config.n_routed_experts % config.n_group, 0u);
  ASSERT_TRUE(std::isfinite(config.softmax_scale()));
  ASSERT_TRUE(std::isfinite(config.rope_amplitude()));
  for (const double f : config.rope_inverse_frequencies()) ASSERT_TRUE(f > 0.0 && f <= 1.0) << f;
}

TEST(ConfigFuzz, MutatedTextNeverCrashes) {
  const std::string valid = v31().dump();
  std::mt19937 random(19);
  int parsed_count = 0;
  for (FuzzRounds rounds(6000); rounds.next();) {
    std::string text = valid;
    for (int n = static_cast<int>(random() % 3); n >= 0; --n) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text[at] = "0123456789{}[],:\"-e"[random() % 19]; break;
        case 2: text.erase(at, 1 + random() % 12); break;
        default: text.insert(at, text.substr(random() % text.size(), 1 + random() % 12)); break;
      }
      if (text.empty()) text = "{}";
    }
    const auto config = parse_config(text, "config.json");
    if (!config.ok()) {
      ASSERT_FALSE(config.status().message().empty());
      continue;
    }
    ++parsed_count;
    ASSERT_NO_FATAL_FAILURE(check_invariants(*config)) << text;
  }
  EXPECT_GT(parsed_count, 100);
}

TEST(ConfigFuzz, MutatedFieldsNeverCrash) {
  const std::vector<Json> values = {nullptr,
                                    true,
                                    0,
                                    1,
                                    2,
                                    -1,
                                    3.5,
                                    1e300,
                                    4294967296u,
                                    UINT64_MAX,
                                    "yarn",
                                    "x",
                                    Json::array(),
                                    Json::object(),
                                    64,
                                    127,
                                    Json::array({1, 2}),
                                    1e-300};
  std::mt19937 random(23);
  for (FuzzRounds rounds(6000); rounds.next();) {
    Json json = random() % 2 == 0 ? v31() : v2_lite();
    for (int n = 0; n < 3; ++n) {
      Json* object = &json;
      const char* inner[] = {"rope_scaling", "quantization_config"};
      if (random() % 4 == 0) {
        Json& candidate = json[inner[random() % 2]];
        if (candidate.is_object() && !candidate.empty()) object = &candidate;
      }
      auto field = object->begin();
      std::advance(field, static_cast<long>(random() % object->size()));
      *field = values[random() % values.size()];
    }
    const auto config = parse_config(json.dump(), "config.json");
    if (config.ok()) {
      ASSERT_NO_FATAL_FAILURE(check_invariants(*config)) << json.dump();
    } else {
      ASSERT_FALSE(config.status().message().empty());
    }
  }
}

}  // namespace
}  // namespace hadal::model
