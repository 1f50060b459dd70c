// Checkpoints as they should not be, through the built programs: every damage to a file, an index,
// a tensor, config.json or a tokenizer is refused with one line that names it, and numbers that are
// none end like any text.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <limits>

#include "support/damaged_model.h"
#include "support/programs.h"

namespace hadal::test {
namespace {

namespace fs = std::filesystem;
using hadal::testing::read_file;
using hadal::testing::TempDir;
using hadal::testing::write_file;
using nlohmann::json;

const std::string kGenerate = HADAL_GENERATE, kEval = HADAL_EVAL, kInfo = HADAL_INFO,
                  kTokenize = HADAL_TOKENIZE;

std::string text(const fs::path& path) {
  return path.string();
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

}  // namespace
}  // namespace hadal::test
