// The built programs as a hostile user meets them: every kind of bad input ends with exit code 2,
// one line on standard error that names what is wrong, nothing on standard output and no file left
// behind, soon and in bounded memory. ProgramsHost needs no device; ProgramsGpu runs its children
// through HADAL_TEST_LAUNCHER. Long because it is one table of cases over one fixture.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <regex>

#include "hadal/device.h"
#include "support/child.h"
#include "support/damaged_model.h"

namespace hadal::test {
namespace {

namespace fs = std::filesystem;
using hadal::testing::read_file;
using hadal::testing::TempDir;
using hadal::testing::write_file;
using nlohmann::json;

const std::string kGenerate = HADAL_GENERATE, kEval = HADAL_EVAL, kInfo = HADAL_INFO,
                  kTokenize = HADAL_TOKENIZE, kTune = HADAL_TUNE;
constexpr uint64_t kGiB = uint64_t{1} << 30;
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;  // its shadow memory alone is terabytes of address space
#else
constexpr bool kSanitized = false;
#endif

std::string text(const fs::path& path) {
  return path.string();
}

// Kept for the whole run, so that pipelines are compiled once and the user's cache is not touched.
const std::string& cache_variable() {
  static const TempDir dir;
  static const std::string variable = "XDG_CACHE_HOME=" + text(dir.path());
  return variable;
}

ChildOptions host_options() {
  ChildOptions options;
  options.environment = {cache_variable()};
  options.address_space_bytes = kSanitized ? 0 : 1 * kGiB;
  return options;
}

ChildOptions device_options() {
  ChildOptions options;
  options.environment = {cache_variable(), "LP_NUM_THREADS=0"};
  options.on_device = true;
  return options;
}

void expect_one_line(const ChildResult& r, int code) {
  EXPECT_EQ(r.code, code) << "signal " << r.signal << "\n" << r.errors;
  EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 1) << r.errors;
  EXPECT_TRUE(r.errors.starts_with("hadal-")) << r.errors;
  EXPECT_LT(r.seconds, 20.0);
}

// Refused: `part` is what the line must say.
void expect_refused(const std::vector<std::string>& command, const std::string& part,
                    const ChildOptions& options = host_options()) {
  SCOPED_TRACE(fs::path(command.front()).filename().string() + " ... " +
               command.back().substr(0, 80) + " -> " + part);
  const ChildResult r = run_child(command, options);
  expect_one_line(r, 2);
  EXPECT_EQ(r.output, "");
  EXPECT_NE(r.errors.find(part), std::string::npos) << r.errors;
}

const ModelFiles& ragged() {
  static const ModelFiles files = ModelFiles::read(golden_dir() / "v3_fp8_ragged");
  return files;
}
const ModelFiles& moonlight() {
  static const ModelFiles files = ModelFiles::read(golden_dir() / "moonlight_bf16");
  return files;
}

// The whole text of a model.safetensors, damaged; its config is right.
void expect_file_refused(const std::string& bytes, const std::string& part) {
  TempDir dir;
  write_file(dir / "config.json", ragged().config.dump());
  write_file(dir / "model.safetensors", bytes);
  expect_refused({kInfo, text(dir.path())}, part);
}

// `damage` to a copy of a model that is otherwise right.
using Damage = std::function<void(ModelFiles&)>;
void expect_model_refused(const ModelFiles& model, const Damage& damage, const std::string& part) {
  ModelFiles copy = model;
  damage(copy);
  TempDir dir;
  copy.write(dir.path());
  expect_refused({kInfo, text(dir.path())}, part);
}

void expect_config_refused(const std::string& key, const json& value, const std::string& part) {
  expect_model_refused(
      ragged(), [&](ModelFiles& m) { m.config[key] = value; }, part);
}

std::string with_length(std::string bytes, uint64_t length) {
  for (size_t i = 0; i < 8; ++i) bytes[i] = char(length >> (8 * i));
  return bytes;
}

TEST(ProgramsHost, TheUndamagedCopiesAreAccepted) {
  for (const ModelFiles* model : {&ragged(), &moonlight()}) {
    TempDir dir;
    model->write(dir.path());
    const ChildResult r = run_child({kInfo, text(dir.path())}, host_options());
    EXPECT_EQ(r.code, 0) << r.errors;
    EXPECT_EQ(r.errors, "");
    EXPECT_NE(r.output.find("plan"), std::string::npos);
  }
}

TEST(ProgramsHost, SafetensorsFiles) {
  const std::string good = ragged().safetensors();
  expect_file_refused("", "model.safetensors: size must be at least 8 bytes, got 0");
  expect_file_refused(good.substr(0, 7), "size must be at least 8 bytes, got 7");
  expect_file_refused(good.substr(0, good.size() - 1), "data must end inside the file");
  expect_file_refused(good.substr(0, 2000), "header must end inside the file");
  expect_file_refused(good + "x", "data must end with the last tensor, got 1 bytes more");
  expect_file_refused(with_length(good, good.size()), "header must end inside the file");
  expect_file_refused(with_length(good, UINT64_MAX), "header must be at most 100000000 bytes");
  const auto file = [](const std::string& header, size_t data) {
    return hadal::testing::SafetensorsWriter().header(header).gap(std::string(data, 'x')).bytes();
  };
  const auto entry = [](const char* name, const char* shape, const char* offsets) {
    return fmt::format(R"("{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{}]}})", name, shape,
                       offsets);
  };
  expect_file_refused(file("{" + entry("a", "4", "0,4") + "," + entry("b", "4", "2,6") + "}", 6),
                      "\"b\" data must begin where the data before it ends");
  expect_file_refused(file("{" + entry("a", "4", "0,4") + "," + entry("b", "4", "5,9") + "}", 9),
                      "\"b\" data must begin where the data before it ends");
  expect_file_refused(file("{" + entry("a", "9", "0,9") + "}", 8), "data must end inside the file");
  expect_file_refused(file("{" + entry("a", "4", "4,0") + "}", 8),
                      "data_offsets must span 4 bytes");
  expect_file_refused(file("{" + entry("a", "4294967296,4294967296,4294967296", "0,8") + "}", 8),
                      "size must fit 64 bits");
  expect_file_refused(file("{" + entry("a", "1e99", "0,8") + "}", 8), "list of whole numbers");
  expect_file_refused(file("{" + entry("a", "4", "0,99999999999999999999999") + "}", 8),
                      "data_offsets must be two whole numbers");
  expect_file_refused(file("{" + entry("a", "4", "0,4") + "," + entry("a", "4", "4,8") + "}", 8),
                      "\"a\" must occur once");
  expect_file_refused(file(std::string(1'000'000, '['), 8), "header must begin with {");
  expect_file_refused(file(R"({"a":)" + std::string(1'000'000, '['), 8), "must be an object");
  expect_file_refused(file("{" + entry("a", "4", "0,4"), 4), "text must be valid JSON");
  expect_file_refused(file("{}", 0), "tensor model.embed_tokens.weight is missing");
}

TEST(ProgramsHost, ShardsAndTheirIndex) {
  const ModelFiles& good = ragged();
  ModelFiles first = good, second = good;
  first.tensors.resize(20);
  second.tensors.erase(second.tensors.begin(), second.tensors.begin() + 20);
  const auto expect = [&](const std::function<void(const TempDir&)>& damage, const char* part) {
    TempDir dir;
    write_file(dir / "config.json", good.config.dump());
    write_file(dir / "1.safetensors", first.safetensors());
    write_file(dir / "2.safetensors", second.safetensors());
    std::map<std::string, std::string> map;
    for (const auto& t : first.tensors) map[t.name] = "1.safetensors";
    for (const auto& t : second.tensors) map[t.name] = "2.safetensors";
    hadal::testing::write_index(dir, map);
    damage(dir);
    expect_refused({kInfo, text(dir.path())}, part);
  };
  const char* index = "model.safetensors.index.json";
  expect([](const TempDir& dir) { fs::remove(dir / "2.safetensors"); },
         "2.safetensors: file must be readable");
  expect([&](const TempDir& dir) { write_file(dir / "2.safetensors", good.safetensors()); },
         "must occur once, got it in");
  expect([&](const TempDir& dir) { write_file(dir / index, "{"); }, "text must be valid JSON");
  expect(
      [&](const TempDir& dir) { write_file(dir / index, R"({"weight_map":{"a":"/etc/passwd"}})"); },
      "must name plain files");
  expect([&](const TempDir& dir) { write_file(dir / index, R"({"weight_map":{"a":"x"}})"); },
         "x: file must be readable");
  expect(
      [&](const TempDir& dir) {
        write_file(dir / index, R"({"m":)" + std::string(1'000'000, '[') + "}");
      },
      "nesting must be at most");
  expect(
      [&](const TempDir& dir) {
        fs::remove(dir / "2.safetensors");
        fs::create_directory(dir / "2.safetensors");
      },
      "must be a regular file");
}

TEST(ProgramsHost, TensorsOfTheWrongKind) {
  const std::string l0 = "model.layers.0.", l1 = "model.layers.1.", mtp = "model.layers.2.";
  const std::string q_a = l0 + "self_attn.q_a_proj.weight", scale = q_a + "_scale_inv";
  const std::string expert = l1 + "mlp.experts.3.up_proj.weight";
  struct Case {
    std::string name, dtype;
    std::string rule;
  };
  for (const auto& [name, dtype, rule] : std::vector<Case>{
           {q_a, "F16", "must be F8_E4M3 or BF16, got F16"},
           {q_a, "F8_E5M2", "must be F8_E4M3 or BF16, got F8_E5M2"},
           {scale, "BF16", "must be F32, got BF16"},
           {expert, "F32", "must be F8_E4M3 or BF16, got F32"},
           {expert, "BF16", "must have the type of expert 0"},
           {"model.norm.weight", "F16", "must be BF16 or F32, got F16"},
           {l0 + "input_layernorm.weight", "U8", "must be BF16 or F32, got U8"},
           {l1 + "mlp.gate.e_score_correction_bias", "I32", "must be BF16 or F32, got I32"},
           {l1 + "mlp.gate.weight", "F8_E4M3", "must be BF16, got F8_E4M3"},
           {"model.embed_tokens.weight", "F32", "must be BF16, got F32"},
           {"lm_head.weight", "F16", "must be BF16, got F16"},
           {mtp + "eh_proj.weight", "F8_E4M3", "must be BF16, got F8_E4M3"}}) {
    SCOPED_TRACE(name);
    expect_model_refused(
        ragged(), [&](ModelFiles& m) { m.retype(name, dtype); }, rule);
    expect_model_refused(
        ragged(), [&](ModelFiles& m) { m.retype(name, dtype); }, name);
  }
  for (const std::string& name :
       {q_a, scale, expert, std::string("model.norm.weight"),
        l0 + "self_attn.kv_a_layernorm.weight", l1 + "mlp.gate.e_score_correction_bias",
        l1 + "mlp.gate.weight", std::string("model.embed_tokens.weight"),
        std::string("lm_head.weight"), mtp + "eh_proj.weight", mtp + "enorm.weight"}) {
    SCOPED_TRACE(name);
    const std::string shape = "tensor " + name + " must have shape [";
    for (const int kind : {0, 1, 2, 3}) {
      expect_model_refused(
          ragged(),
          [&](ModelFiles& m) {
            std::vector<uint64_t> dims = m.tensor(name).shape;
            if (kind == 0) dims.back() += 1;
            if (kind == 1) dims.front() -= 1;
            if (kind == 2) dims.push_back(1);
            if (kind == 3) dims.clear();
            m.reshape(name, dims);
          },
          shape);
    }
    const std::string missing =
        name.ends_with("_scale_inv") ? name + ", which is missing" : name + " is missing";
    expect_model_refused(
        ragged(), [&](ModelFiles& m) { m.remove(name); }, missing);
  }
  expect_model_refused(
      ragged(),
      [&](ModelFiles& m) {
        m.reshape(q_a, {0, 0});
      },
      "must have shape [96, 200], got [0, 0]");
}

TEST(ProgramsHost, ConfigFields) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim",
                          "moe_intermediate_size", "max_position_embeddings", "architectures"}) {
    expect_model_refused(
        ragged(), [&](ModelFiles& m) { m.config.erase(key); },
        fmt::format("config.json: {} must be present", key));
  }
  for (const json& value : {json(4000000000u), json(0), json(-1), json(1e300), json(3.5),
                            json("320"), json(nullptr), json(UINT64_MAX), json::array({320})}) {
    for (const char* key : {"vocab_size", "num_hidden_layers", "max_position_embeddings"}) {
      expect_config_refused(key, value, fmt::format("{} must be a whole number between", key));
    }
  }
  expect_config_refused("hidden_size", uint64_t{1} << 31, "hidden_size must be a whole number");
  expect_config_refused("num_hidden_layers", 1000000000,
                        "num_hidden_layers must be a whole number");
  expect_config_refused("max_position_embeddings", uint64_t{1} << 32,
                        "max_position_embeddings must");
  expect_config_refused("num_hidden_layers", 1024, "is missing");
  expect_config_refused("n_routed_experts", 1024, "must have shape [1024, 200], got [8, 200]");
  expect_config_refused("architectures", json::array({"DeepseekV32ForCausalLM"}), "indexer");
  expect_config_refused("architectures", json::array({"LlamaForCausalLM"}), "LlamaForCausalLM");
  expect_config_refused("n_group", 3, "n_routed_experts must be a multiple of n_group");
  expect_config_refused("topk_group", 5, "topk_group must be at most n_group");
  expect_config_refused("num_experts_per_tok", 9, "num_experts_per_tok must be at most");
  expect_config_refused("first_k_dense_replace", 3, "must be at most num_hidden_layers");
  expect_config_refused("num_key_value_heads", 2, "must equal num_attention_heads");
  expect_config_refused("qk_rope_head_dim", 15, "qk_rope_head_dim must be even");
  expect_config_refused("scoring_func", "softmax", "scoring_func must be sigmoid");
  expect_config_refused("rope_scaling", json{{"type", "linear"}}, "must be yarn or default");
  expect_config_refused("quantization_config", json{{"quant_method", "awq"}}, "must be fp8");
  expect_config_refused("eos_token_id", 320,
                        "eos_token_id must be a whole number between 0 and 319");
  // Contradicts the tensors.
  expect_config_refused("hidden_size", 208, "must have shape [320, 208], got [320, 200]");
  expect_config_refused("q_lora_rank", nullptr, "q_proj.weight is missing");
  expect_config_refused("num_attention_heads", 8, "num_attention_heads");
}

TEST(ProgramsHost, ConfigText) {
  const auto expect = [](const std::string& config, const char* part) {
    TempDir dir;
    ragged().write(dir.path());
    write_file(dir / "config.json", config);
    expect_refused({kInfo, text(dir.path())}, part);
  };
  const std::string good = ragged().config.dump();
  expect("", "config.json: text must be valid JSON");
  expect(good.substr(0, good.size() / 2), "text must be valid JSON");
  expect("[]", "text must be an object");
  expect(std::string(1'000'000, '['), "nesting must be at most");
  expect(good.substr(0, good.size() - 1) + ",\"x\":" + std::string(100000, '9') + "}",
         "valid JSON");
  expect(good.substr(0, good.size() - 1) + ",\"vocab_size\":320}", "got \"vocab_size\" twice");
  expect(good + good, "text must be valid JSON");
  expect(std::string(1, '\0') + good, "text must be valid JSON");
  expect(good.substr(0, good.size() - 1) + ",\"x\xff\":1}", "text must be valid JSON");
  expect(std::string(17u << 20, ' '), "text must be at most");
}

// Loads, but a kernel would refuse it in the middle of a run: refused by name before that.
TEST(ProgramsHost, SizesThatNoKernelRuns) {
  expect_config_refused("kv_lora_rank", 66,
                        "mla_decode: rank must be a positive multiple of 4, got 66");
  expect_config_refused("kv_lora_rank", 2048, "mla_decode: rank must be at most 1024, got 2048");
  expect_config_refused("qk_rope_head_dim", 18, "rope must be a multiple of 4, got 18");
  expect_config_refused("qk_nope_head_dim", 30,
                        "mla_prefill: nope must be a multiple of 4, got 30");
  expect_config_refused("v_head_dim", 23, "mla_prefill: v must be even, got 23");
  expect_config_refused("v_head_dim", 2048, "mla_prefill: v must be at most 1024, got 2048");
  expect_config_refused("n_routed_experts", 2048, "moe_gate: experts must be in 1..1024, got 2048");
  expect_config_refused("vocab_size", 1 << 20, "sample: vocab must be in 1..524288, got 1048576");
  expect_config_refused("rms_norm_eps", 1e-20, "rms_norm: eps must be from 1e-12 to 1");
  expect_model_refused(
      ragged(),
      [](ModelFiles& m) {
        m.config["n_routed_experts"] = 256;
        m.config["num_experts_per_tok"] = 33;
      },
      "moe_gate: top_k must be at most 32, got 33");
  expect_model_refused(
      ragged(),
      [](ModelFiles& m) {
        m.config["n_routed_experts"] = 256;
        m.config["n_group"] = 128;
      },
      "moe_gate: n_group must be in 1..64, got 128");
  expect_model_refused(
      ragged(),
      [](ModelFiles& m) {
        m.config["n_shared_experts"] = 64;
        m.config["moe_intermediate_size"] = 1 << 20;
      },
      "n_shared_experts x moe_intermediate_size must suit the kernels; swiglu: n must be at most");
  expect_model_refused(
      ragged(),
      [](ModelFiles& m) {
        m.config["num_attention_heads"] = m.config["num_key_value_heads"] = 4096;
        m.config["qk_nope_head_dim"] = 4096;
      },
      "mla_prefill: row strides must be at most 16777216");
}

TEST(ProgramsHost, Directories) {
  TempDir dir;
  const std::string file = text(dir / "file"), missing = text(dir / "missing");
  write_file(file, "x");
  for (const std::string& program : {kGenerate, kEval, kInfo}) {
    std::vector<std::string> rest;
    if (program == kEval) rest = {"--ids", "1"};
    const auto command = [&](const std::string& model) {
      std::vector<std::string> words{program, model};
      words.insert(words.end(), rest.begin(), rest.end());
      return words;
    };
    expect_refused(command(missing), missing + " must be a directory, got nothing of that name");
    expect_refused(command(file), file + " must be a directory, got another kind of file");
    expect_refused(command(text(dir.path())), "config.json: file must be readable");
    expect_refused(command(""), "must be a directory");
    expect_refused(command(std::string(5000, 'x')), "must be a directory");
    expect_refused(command("two\nlines"), "two?lines must be a directory");
  }
  expect_refused({kTokenize, missing}, "missing/tokenizer.json: No such file or directory");
}

TEST(ProgramsHost, OptionValues) {
  const std::string fables = text(fables_dir());
  const auto generate = [&](std::vector<std::string> rest, const std::string& part) {
    rest.insert(rest.begin(), {kGenerate, fables});
    expect_refused(rest, part);
  };
  generate({"--bogus"}, "--bogus");
  generate({"--temperature", "-1"}, "temperature must be at least 0, got -1");
  generate({"--temperature", "nan"}, "temperature must be at least 0, got nan");
  generate({"--temperature", "1e999"}, "temperature must be at least 0, got inf");
  generate({"--temperature", "hot"}, "--temperature");
  generate({"--top-p", "0"}, "top_p must be above 0");
  generate({"--top-p", "1.5"}, "top_p must be above 0");
  generate({"--min-p", "2"}, "min_p must be 0 to 1");
  generate({"--top-k", "-1"}, "--top-k");
  generate({"--seed", "18446744073709551616"}, "--seed");
  generate({"--seed", "x"}, "--seed");
  generate({"--repetition-penalty", "0"}, "repetition_penalty must be above 0");
  generate({"--presence-penalty", "2.5"}, "presence_penalty must be -2 to 2, got 2.5");
  generate({"--frequency-penalty", "-3"}, "frequency_penalty must be -2 to 2, got -3");
  for (const char* bias : {"5", "5=", "=1", "x=1", "5=1x", "-5=1", "5:1"}) {
    generate({"--logit-bias", bias}, std::string("must be ID=VALUE, got '") + bias + "'");
  }
  generate({"--logit-bias", "5=101"}, "logit_bias must be -100 to 100, got 101");
  generate({"--logit-bias", "5=1,6=2", "--logit-bias", "5=3"}, "must be different, got 5 twice");
  generate({"--logit-bias", "4294967295=1"}, "ids of logit_bias must be below");
  generate({"--logprobs", "3"}, "--prompts");
  generate({"--prompts", "x", "--logprobs", "21"}, "--logprobs");
  generate({"-n", "-3"}, "--max-new-tokens");
  generate({"--chunk", "0"}, "--chunk");
  generate({"--chunk", "65537"}, "--chunk");
  generate({"--cache", "f16"}, "--cache");
  generate({"--context", "4294967296"}, "--context");
  generate({"--context", "2049"}, "--context: must be at most the model's 2048, got 2049");
  generate({"prompt", "--ids", "1"}, "--ids");
  generate({"--ids", ""}, "the text must have at least one token, got 0");
  generate({"--ids", "1,x"}, "--ids: must be numbers below 2^32 with commas between, got 'x'");
  generate({"--ids", "1,2,"}, "got ''");
  generate({"--ids", "-1"}, "got '-1'");
  generate({"--ids", "4294967296"}, "got '4294967296'");
  generate({"--ids", "1,2048"},
           "token ids must be below the vocabulary's 2048, got 2048 at index 1");
  generate({""}, "the text must have at least one token, got 0");
  generate({"--prompt-file", "/dev/null"}, "the text must have at least one token, got 0");
  generate({"--prompt-file", "/dev/zero"}, "/dev/zero: text must be at most 256.0 MiB");
  generate({"--prompt-file", "/"}, "/: cannot be read");
  generate({"--prompt-file", "/nonexistent"}, "/nonexistent: cannot be read");
  generate({"a\xff"}, "UTF-8");
  expect_refused({kGenerate}, "MODEL_DIR");
  expect_refused({kEval, fables}, "--ids or --text");
  expect_refused({kEval, fables, "--ids", "1", "--text", "x"}, "excludes");
  expect_refused({kEval, fables, "--ids", "2048"}, "must be below the vocabulary's 2048, got 2048");
  expect_refused({kEval, fables, "--ids", ""}, "at least one token");
  expect_refused({kEval, fables, "--text", "/dev/null"}, "at least one token");
  expect_refused({kEval, fables, "--ids", "1", "--backend", "cuda"}, "--backend");
  expect_refused({kInfo, fables, "--context", "2049"}, "at most the model's 2048, got 2049");
}

// 4 layers and one of MTP of 64 + 16 channels: 320, 160 and 112 bytes a position and layer.
TEST(ProgramsHost, EveryCacheFormatIsTaken) {
  for (const auto& [word, plan] : {std::pair{"f32", "f32 cache of 2048 positions 6.2 MiB"},
                                   {"bf16", "bf16 cache of 2048 positions 3.1 MiB"},
                                   {"fp8", "fp8 cache of 2048 positions 2.0 MiB"}}) {
    const std::string fables = text(fables_dir());
    const ChildResult info = run_child({kInfo, fables, "--cache", word}, host_options());
    EXPECT_EQ(info.code, 0) << info.errors;
    EXPECT_NE(info.output.find(plan), std::string::npos) << info.output;
    const ChildResult eval = run_child(
        {kEval, fables, "--ids", "1,2", "--backend", "reference", "--cache", word}, host_options());
    EXPECT_EQ(eval.code, 0) << eval.errors;
  }
}

TEST(ProgramsHost, TuneRefusesBadOptionsBeforeItMeasures) {
  TempDir dir;
  const std::string out = text(dir / "tuning.txt");
  expect_refused({kTune}, "--out");
  for (const char* shape : {"4x4", "0x4x4", "4x4x4x4", "axbxc", "4x4x", "4x4x1048577"}) {
    expect_refused({kTune, "--out", out, "--shape", shape}, "--shape: must be MxNxK");
  }
  expect_refused({kTune, "--out", text(dir / "no" / "file")}, "directory that exists");
  expect_refused({kTune, "--out", text(dir.path())}, "must be a file");
  expect_refused({kTune, "--out", out, "--experts", "1025"}, "--experts");
  EXPECT_FALSE(fs::exists(out));
}

TEST(ProgramsGpu, TuneWritesOneChoicePerShape) {
  TempDir dir;
  const std::string out = text(dir / "tuning.txt");
  const std::vector<std::string> dense = {kTune,     "--out",    out,       "--seconds", "0",
                                          "--shape", "1x40x130", "--shape", "3x40x130"};
  std::vector<std::string> grouped = {kTune, "--out", out, "--seconds", "0", "--shape", "2x40x130"};
  grouped.insert(grouped.end(), {"--experts", "3"});
  for (const auto& [command, ending] :
       {std::pair(dense, "end 2\n"), std::pair(grouped, "end 1\n")}) {
    const ChildResult r = run_child(command, device_options());
    EXPECT_EQ(r.code, 0) << r.errors;
    EXPECT_EQ(r.output.find("WRONG"), std::string::npos) << r.output;
    std::ifstream in(out);
    const std::string file{std::istreambuf_iterator<char>(in), {}};
    EXPECT_TRUE(file.starts_with("hadal-tuning 1\n")) << file;
    EXPECT_TRUE(file.ends_with(ending)) << file;
  }
}

TEST(ProgramsHost, TextsLongerThanTheContext) {
  std::string ids = "1";
  for (int i = 1; i < 2048; ++i) ids += ",1";
  const std::string fables = text(fables_dir());
  expect_refused({kGenerate, fables, "--ids", ids},
                 "shorter than the context of 2048 tokens, got 2048");
  expect_refused({kGenerate, fables, "--ids", "1,2,3", "--context", "3"},
                 "shorter than the context of 3 tokens, got 3");
  expect_refused({kEval, fables, "--ids", ids + ",1"},
                 "must fit the context of 2048 tokens, got 2049");
  expect_refused({kEval, fables, "--ids", ids + ",1", "--perplexity", "--window", "2049"},
                 "the window must fit the context of 2048 tokens, got 2049");
}

TEST(ProgramsHost, OutputFilesThatCannotBeWritten) {
  TempDir dir;
  const std::string fables = text(fables_dir());
  for (const char* option : {"--dump-logits", "--dump-mtp-logits"}) {
    expect_refused({kEval, fables, "--ids", "1", option, text(dir / "no/file")},
                   std::string(option) + ": " + text(dir / "no/file") + " must lie in a directory");
    expect_refused({kEval, fables, "--ids", "1", option, text(dir.path())}, "got a directory");
  }
  expect_refused(
      {kEval, fables, "--ids", "1", "--backend", "reference", "--dump-logits", "/dev/full"},
      "/dev/full: cannot be written");
  EXPECT_FALSE(fs::is_regular_file("/dev/full"));
  // What fails behind the check leaves nothing behind either.
  expect_refused({kEval, fables, "--ids", "4000", "--dump-logits", text(dir / "x")}, "vocabulary");
  EXPECT_TRUE(fs::is_empty(dir.path()));
  const ChildResult r = run_child(
      {kEval, fables, "--ids", "1,2", "--backend", "reference", "--dump-logits", text(dir / "x")},
      host_options());
  EXPECT_EQ(r.code, 0) << r.errors;
  EXPECT_EQ(fs::file_size(dir / "x"), 2u * 2048 * 4);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
}

TEST(ProgramsHost, Tokenizers) {
  const json good = json::parse(read_file(fables_dir() / "tokenizer.json"));
  const auto expect = [&](const std::string& tokenizer, const char* part) {
    TempDir dir;
    for (const auto& entry : fs::directory_iterator(fables_dir())) {
      if (entry.path().filename() != "tokenizer.json") {
        fs::create_symlink(entry.path(), dir.path() / entry.path().filename());
      }
    }
    if (!tokenizer.empty()) write_file(dir / "tokenizer.json", tokenizer);
    expect_refused({kGenerate, text(dir.path())}, part);
    if (std::string_view(part).starts_with("ids")) return;  // only a model has a size to hold it to
    expect_refused({kTokenize, text(dir.path())}, part);
  };
  expect("", "tokenizer.json: No such file or directory");
  expect("{", "tokenizer.json: ");
  expect(std::string(1'000'000, '['), "tokenizer.json: ");
  json copy = good;
  copy["added_tokens"].push_back(copy["added_tokens"][0]);
  copy["added_tokens"].back()["id"] = 2048;
  copy["added_tokens"].back()["content"] = "<|beyond|>";
  expect(copy.dump(), "ids must be below config.json's vocab_size of 2048, got 2048");
  copy = good;
  copy["model"]["merges"][5] = "no such";
  expect(copy.dump(), "merge");
  copy = good;
  copy["model"]["type"] = "Unigram";
  expect(copy.dump(), "Unigram");
  // hadal-eval with --ids needs none.
  TempDir dir;
  ragged().write(dir.path());
  const ChildResult r = run_child(
      {kEval, text(dir.path()), "--ids", "1,2", "--backend", "reference"}, host_options());
  EXPECT_EQ(r.code, 0) << r.errors;
}

TEST(ProgramsHost, TokenizeInput) {
  ChildOptions options = host_options();
  options.input = "12 x";
  const auto refused = [&](const char* flag, const std::string& input, const char* part) {
    options.input = input;
    const ChildResult r = run_child({kTokenize, text(fables_dir()), flag}, options);
    expect_one_line(r, 2);
    EXPECT_NE(r.errors.find(part), std::string::npos) << r.errors;
  };
  refused("--decode", "12 x", "ids must be integers");
  refused("--decode", "2048", "2048");
  refused("--decode", "99999999999999", "ids must be integers");
  refused("--special", "a\xff", "UTF-8");
  refused("--json", "{\n", "a line must be a JSON string");
  refused("--json", std::string(100000, '['), "a line must be a JSON string");
}

TEST(ProgramsHost, NoVulkanDevice) {
  ChildOptions options = host_options();
  options.environment.insert(options.environment.end(),
                             {"VK_DRIVER_FILES=/dev/null", "VK_ICD_FILENAMES=/dev/null"});
  expect_refused({kInfo}, "no Vulkan driver was found", options);
  expect_refused({kGenerate, text(fables_dir())}, "no Vulkan driver was found", options);
  expect_refused({kEval, text(fables_dir()), "--ids", "1"}, "no Vulkan driver was found", options);
}

// No driver here lacks one; what Device::create and hadal-info ask is asked of made-up devices.
TEST(ProgramsHost, ADeviceWithoutANeededFeature) {
  const std::pair<bool Caps::*, const char*> features[] = {
      {&Caps::buffer_device_address, "bufferDeviceAddress"},
      {&Caps::shader_int64, "shaderInt64"},
      {&Caps::storage_buffer_8bit, "storageBuffer8BitAccess"},
      {&Caps::storage_buffer_16bit, "storageBuffer16BitAccess"},
      {&Caps::scalar_block_layout, "scalarBlockLayout"},
      {&Caps::timeline_semaphore, "timelineSemaphore"},
      {&Caps::subgroup_arithmetic, "subgroup arithmetic in compute shaders"}};
  EXPECT_EQ(missing_requirement(minimum_caps()), "");
  for (const auto& [feature, name] : features) {
    Caps caps = minimum_caps();
    caps.*feature = false;
    EXPECT_EQ(missing_requirement(caps), name);
  }
}

TEST(ProgramsHost, AClosedOrFullStandardOutput) {
  const std::string shell = "/bin/sh";
  for (const std::string& program : {kInfo, kTokenize}) {
    const ChildResult full = run_child(
        {shell, "-c", program + " " + text(fables_dir()) + " >/dev/full"}, host_options());
    expect_one_line(full, 2);
    EXPECT_NE(full.errors.find("standard output cannot be written"), std::string::npos);
    const ChildResult closed =
        run_child({shell, "-c", program + " " + text(fables_dir()) + " >&- 2>&-"}, host_options());
    EXPECT_EQ(closed.signal, 0);
  }
}

// ---- with a device

TEST(ProgramsGpu, UnknownDevices) {
  const std::string fables = text(fables_dir());
  expect_refused({kGenerate, fables, "--device", "no such"}, "no device named like 'no such'",
                 device_options());
  expect_refused({kGenerate, fables, "--device", "99"}, "index must be below", device_options());
  expect_refused({kEval, fables, "--ids", "1", "--device", "99999999999999999999"},
                 "no device named", device_options());
}

TEST(ProgramsGpu, WeightsThatAreNoNumbers) {
  const auto expect = [](const ModelFiles& model, const Damage& damage, const char* part) {
    ModelFiles copy = model;
    damage(copy);
    TempDir dir;
    copy.write(dir.path());
    expect_refused({kGenerate, text(dir.path()), "--ids", "1,2", "--print-ids"}, part,
                   device_options());
    expect_refused({kEval, text(dir.path()), "--ids", "1,2", "--dump-logits", text(dir / "out")},
                   part, device_options());
    EXPECT_FALSE(fs::exists(dir / "out"));
  };
  const std::string o = "model.layers.1.self_attn.o_proj.weight";
  expect(
      ragged(), [&](ModelFiles& m) { m.tensor(o).data[77] = '\x7f'; },
      "o_proj.weight must hold no NaN, got one at element 77");
  expect(
      ragged(), [&](ModelFiles& m) { m.tensor(o).data.back() = '\xff'; }, "must hold no NaN");
  const std::string scale = o + "_scale_inv";
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = -1.0f / 0.0f;
  expect(
      ragged(), [&](ModelFiles& m) { std::memcpy(m.tensor(scale).data.data(), &nan, 4); },
      "_scale_inv must be finite, got nan at element 0");
  expect(
      ragged(), [&](ModelFiles& m) { std::memcpy(m.tensor(scale).data.data(), &inf, 4); },
      "_scale_inv must be finite, got -inf at element 0");
}

// Formats that hold NaN legally (BF16, F32 norms and biases) and scales that overflow make NaN
// logits, not crashes: expert and token ids stay in range.
TEST(ProgramsGpu, NanInsideTheModelEndsLikeAnyText) {
  const auto expect_runs = [](const ModelFiles& model, const Damage& damage) {
    ModelFiles copy = model;
    damage(copy);
    TempDir dir;
    copy.write(dir.path());
    for (const char* temperature : {"0", "0.8"}) {
      const ChildResult r =
          run_child({kGenerate, text(dir.path()), "--ids", "1,2,3", "--print-ids", "-n", "3",
                     "--quiet", "--temperature", temperature, "--top-k", "5", "--top-p", "0.9"},
                    device_options());
      EXPECT_TRUE(r.code == 0 || r.code == 2) << "signal " << r.signal << r.errors;
    }
  };
  const auto fill = [](const std::string& name, char low, char high) {
    return [=](ModelFiles& m) {
      std::string& data = m.tensor(name).data;
      for (size_t i = 0; i < data.size(); ++i) data[i] = i % 2 ? high : low;
    };
  };
  for (const std::string& name :
       {std::string("model.embed_tokens.weight"), std::string("model.layers.1.mlp.gate.weight"),
        std::string("model.layers.1.mlp.gate.e_score_correction_bias"),
        std::string("model.norm.weight"), std::string("lm_head.weight")}) {
    SCOPED_TRACE(name);
    expect_runs(moonlight(), fill(name, '\xff', '\x7f'));  // NaN in bfloat16 and in float
  }
  expect_runs(ragged(), [](ModelFiles& m) {
    for (auto& t : m.tensors) {
      if (!t.name.ends_with("_scale_inv")) continue;
      const float huge = 3e38f;
      for (size_t i = 0; i < t.data.size(); i += 4) std::memcpy(&t.data[i], &huge, 4);
    }
  });
}

TEST(ProgramsGpu, TooLittleMemoryIsRefusedWithTheNumbers) {
  TempDir dir;
  for (const auto& entry : fs::directory_iterator(fables_dir())) {
    if (entry.path().filename() != "config.json") {
      fs::create_symlink(entry.path(), dir.path() / entry.path().filename());
    }
  }
  json config = json::parse(read_file(fables_dir() / "config.json"));
  config["max_position_embeddings"] = 1 << 25;
  write_file(dir / "config.json", config.dump());
  for (const char* words : {"cache of 33554432 positions", "are needed (weights", "would fit"}) {
    expect_refused({kGenerate, text(dir.path()), "--context", "33554432"}, words, device_options());
  }
  config["max_position_embeddings"] = 1 << 27;  // more keys than workgroups on most devices, too
  write_file(dir / "config.json", config.dump());
  expect_refused({kGenerate, text(dir.path()), "--context", "134217728"}, "", device_options());
}

TEST(ProgramsGpu, StepsLargerThanTheKernelsTake) {
  TempDir dir;
  ModelFiles copy = moonlight();
  copy.config["max_position_embeddings"] = 65536;
  copy.write(dir.path());
  expect_refused({kGenerate, text(dir.path()), "--ids", "1", "--print-ids", "--chunk", "65536"},
                 "must suit the kernels", device_options());
}

TEST(ProgramsGpu, InterruptEndsWithOneLine) {
  ChildOptions options = device_options();
  options.signal_at_output = SIGINT;
  const ChildResult r =
      run_child({kGenerate, text(fables_dir()), "Once", "-n", "2000", "--ignore-eos"}, options);
  expect_one_line(r, 130);
  EXPECT_EQ(r.errors, "hadal-generate: interrupted\n");
  EXPECT_TRUE(r.output.starts_with("Once"));
  EXPECT_TRUE(r.output.ends_with("\n"));
}

// ---- slow: 1 GiB of weights

// Writes a dense FP8 model of about 0.9 GiB (real file pages, not a hole); returns the bytes of its
// tensors.
uint64_t write_big_model(const TempDir& dir) {
  constexpr uint32_t kHidden = 4096, kWidth = 36864, kVocab = 1024;
  json config = ragged().config;
  config.merge_patch(json{{"vocab_size", kVocab},
                          {"hidden_size", kHidden},
                          {"intermediate_size", kWidth},
                          {"num_attention_heads", 32},
                          {"num_key_value_heads", 32},
                          {"q_lora_rank", 512},
                          {"num_nextn_predict_layers", 0},
                          {"kv_lora_rank", 256}});
  config["n_routed_experts"] = nullptr;
  for (const char* key : {"n_group", "topk_group", "num_experts_per_tok"}) config.erase(key);
  write_file(dir / "config.json", config.dump());
  std::string header = "{";
  uint64_t end = 0;
  const auto add = [&](const std::string& name, const char* dtype, std::vector<uint64_t> shape,
                       uint64_t element_bytes) {
    uint64_t bytes = element_bytes;
    for (const uint64_t dim : shape) bytes *= dim;
    if (end > 0) header += ",";
    header.append("\"").append(name).append("\":");
    header += hadal::testing::SafetensorsWriter::tensor_json(dtype, shape, end, end + bytes);
    end += bytes;
  };
  const auto norm = [&](const std::string& name, uint64_t n) { add(name, "BF16", {n}, 2); };
  const auto linear = [&](const std::string& name, uint64_t n, uint64_t k) {
    add(name + ".weight", "F8_E4M3", {n, k}, 1);
    add(name + ".weight_scale_inv", "F32", {(n + 127) / 128, (k + 127) / 128}, 4);
  };
  add("model.embed_tokens.weight", "BF16", {kVocab, kHidden}, 2);
  add("lm_head.weight", "BF16", {kVocab, kHidden}, 2);
  norm("model.norm.weight", kHidden);
  for (int i = 0; i < 2; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i), self = layer + "self_attn.";
    norm(layer + "input_layernorm.weight", kHidden);
    norm(layer + "post_attention_layernorm.weight", kHidden);
    linear(self + "q_a_proj", 512, kHidden);
    norm(self + "q_a_layernorm.weight", 512);
    linear(self + "q_b_proj", 32 * 48, 512);
    linear(self + "kv_a_proj_with_mqa", 256 + 16, kHidden);
    norm(self + "kv_a_layernorm.weight", 256);
    linear(self + "kv_b_proj", 32 * (32 + 24), 256);
    linear(self + "o_proj", kHidden, 32 * 24);
    linear(layer + "mlp.gate_proj", kWidth, kHidden);
    linear(layer + "mlp.up_proj", kWidth, kHidden);
    linear(layer + "mlp.down_proj", kHidden, kWidth);
  }
  header += "}";
  std::ofstream file(dir / "model.safetensors", std::ios::binary);
  for (int i = 0; i < 8; ++i) file.put(char(header.size() >> (8 * i)));
  file << header;
  const std::string piece(1 << 20, '\1');  // tiny in every type, never NaN
  for (uint64_t at = 0; at < end; at += piece.size()) {
    file.write(piece.data(), std::streamsize(std::min<uint64_t>(piece.size(), end - at)));
  }
  EXPECT_TRUE(file.flush());
  return end;
}

// The peak resident set minus the device's own memory (a CPU driver's is part of the process).
TEST(ProgramsSlow, LoadingKeepsLittleOfTheCheckpointResident) {
  const auto mib_after = [](const std::string& text, const std::string& word,
                            const char* unit_end) {
    std::smatch match;
    const std::regex number(word + "([0-9.]+) (MiB|GiB)" + unit_end);
    if (!std::regex_search(text, match, number)) ADD_FAILURE() << word << " in " << text;
    return match.empty() ? 0.0 : std::stod(match[1]) * (match[2] == "GiB" ? 1024 : 1);
  };
  const auto beyond_device = [&](const std::string& dir, std::vector<std::string> more) {
    std::vector<std::string> command{kGenerate, dir, "--ids",     "1", "--print-ids",
                                     "-n",      "1", "--context", "64"};
    command.insert(command.end(), more.begin(), more.end());
    ChildOptions options = device_options();
    options.timeout_seconds = 300;
    const ChildResult r = run_child(command, options);
    EXPECT_EQ(r.code, 0) << r.errors;
    const double device = mib_after(r.errors, "memory   ", " on the device");
    const double resident = mib_after(r.errors, "on the device, ", " resident");
    fmt::print("  {:.1f} MiB resident, {:.1f} on the device: {:.1f} beyond, {:.2f} s\n", resident,
               device, resident - device, r.seconds);
    return resident - device;
  };
  TempDir small_dir, dir;
  ragged().write(small_dir.path());
  const double process = beyond_device(text(small_dir.path()), {});  // the driver and its compiler
  const double checkpoint = double(write_big_model(dir)) / (1 << 20);
  fmt::print("  checkpoint {:.1f} MiB\n", checkpoint);
  EXPECT_GT(checkpoint, 890);  // all under 1 GiB, where the program prints tenths of MiB
  for (const auto& more : {std::vector<std::string>{}, {"--absorb-bf16"}}) {
    const double beyond = beyond_device(text(dir.path()), more);
    EXPECT_LT(beyond, checkpoint + 256);  // what is promised
    EXPECT_LT(beyond, process + 100);     // what is: a chunk of 16 MiB and the driver's workers
  }
}

}  // namespace
}  // namespace hadal::test
