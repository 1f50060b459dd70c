// What a load keeps resident beside the device's memory, through hadal-generate: 1 GiB of weights.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "support/golden.h"
#include "support/programs.h"

namespace hadal::test {
namespace {

using hadal::testing::read_file;
using hadal::testing::TempDir;
using hadal::testing::write_file;
using nlohmann::json;

// Writes a dense FP8 model of about 0.9 GiB (real file pages, not a hole); returns the bytes of its
// tensors.
uint64_t write_big_model(const TempDir& dir) {
  constexpr uint32_t kHidden = 4096, kWidth = 36864, kVocab = 1024;
  json config = json::parse(read_file(golden_dir() / "v3_fp8_ragged/config.json"));
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
    std::vector<std::string> command{HADAL_GENERATE, dir, "--ids",     "1", "--print-ids",
                                     "-n",           "1", "--context", "64"};
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
  TempDir dir;
  const double process =
      beyond_device((golden_dir() / "v3_fp8_ragged").string(), {});  // the driver and its compiler
  const double checkpoint = double(write_big_model(dir)) / (1 << 20);
  fmt::print("  checkpoint {:.1f} MiB\n", checkpoint);
  EXPECT_GT(checkpoint, 890);  // all under 1 GiB, where the program prints tenths of MiB
  for (const auto& more : {std::vector<std::string>{}, {"--absorb-bf16"}}) {
    const double beyond = beyond_device(dir.path().string(), more);
    EXPECT_LT(beyond, checkpoint + 256);  // what is promised
    EXPECT_LT(beyond, process + 100);     // what is: a chunk of 16 MiB and the driver's workers
  }
}

}  // namespace
}  // namespace hadal::test
