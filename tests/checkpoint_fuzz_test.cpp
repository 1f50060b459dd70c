// A whole checkpoint with a few bytes of its config or header changed: planned or refused, never a
// crash, and plans never wrap around. Also the memory plan at the far corner of what a config may
// hold.
#include <gtest/gtest.h>

#include <random>

#include "hadal/model/model.h"
#include "hadal/model/reference/model.h"
#include "support/damaged_model.h"
#include "support/fuzz.h"

namespace hadal::model {
namespace {

using hadal::testing::FuzzRounds;
using hadal::testing::read_file;
using hadal::testing::TempDir;
using hadal::testing::write_file;

std::string mutate(std::string text, std::mt19937& random, bool keep_length) {
  for (size_t n = 1 + random() % 3; n > 0; --n) {
    const size_t at = random() % text.size();
    switch (random() % (keep_length ? 3 : 5)) {
      case 0: text[at] = char(text[at] ^ (1 << random() % 8)); break;
      case 1: text[at] = "0123456789{}[],:\"-e"[random() % 19]; break;
      case 2: {  // a digit, where a change most often stays valid JSON
        const size_t digit = text.find_first_of("0123456789", at);
        if (digit != std::string::npos) text[digit] = char('0' + random() % 10);
        break;
      }
      case 3: text.erase(at, 1 + random() % 8); break;
      default: text.insert(at, text.substr(random() % text.size(), 1 + random() % 40)); break;
    }
    if (text.empty()) text = "{}";
  }
  return text;
}

void check_plan(const std::filesystem::path& dir, int& planned) {
  const auto config = load_config(dir);
  auto checkpoint = Checkpoint::open(dir);
  if (!config.ok() || !checkpoint.ok()) {
    ASSERT_FALSE(config.ok() ? checkpoint.status().message().empty()
                             : config.status().message().empty());
    return;
  }
  for (const bool absorb_bf16 : {false, true}) {
    LoadOptions options;
    options.absorb_bf16 = absorb_bf16;
    const auto bytes = weights_device_bytes(*checkpoint, *config, options);
    if (!bytes.ok()) {
      ASSERT_FALSE(bytes.status().message().empty());
      continue;
    }
    ++planned;
    ASSERT_GT(*bytes, 0u);
    ASSERT_LT(*bytes,
              uint64_t{1} << 32);  // the file has 2 MB; rows are padded to at most 256 bytes
    ModelOptions model_options;
    model_options.max_context = config->max_position_embeddings;
    ASSERT_LT(workspace_bytes(*config, model_options), uint64_t{1} << 56);
    (void)check_supported(*config, model_options, minimum_caps(8));
  }
  const auto shared = std::make_shared<const Checkpoint>(*std::move(checkpoint));
  (void)reference::ReferenceModel::create(shared, *config);
}

TEST(CheckpointFuzz, MutatedConfigsAndHeadersNeverCrash) {
  const auto source = test::golden_dir() / "v3_fp8_ragged";
  const std::string config = read_file(source / "config.json");
  const std::string file = read_file(source / "model-00001-of-000001.safetensors");
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | static_cast<unsigned char>(file[size_t(i)]);
  TempDir dir;
  write_file(dir / "model.safetensors", file);
  std::mt19937 random(29);
  int planned = 0;
  for (FuzzRounds rounds(1000); rounds.next();) {
    const bool in_config = random() % 3 != 0;
    write_file(dir / "config.json", in_config ? mutate(config, random, false) : config);
    if (!in_config) {
      // In place: the tensors' bytes stay where they are.
      std::fstream out(dir / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
      const std::string text = mutate(file.substr(0, 8 + header), random, true);
      out.write(text.data(), std::streamsize(text.size()));
    }
    ASSERT_NO_FATAL_FAILURE(check_plan(dir.path(), planned));
    if (!in_config) {
      std::fstream out(dir / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
      out.write(file.data(), std::streamsize(8 + header));
    }
  }
  EXPECT_GT(planned, 100);  // the mutations reach behind the parsers
}

// The largest value of every field that config.cpp lets pass, and the longest batch.
TEST(CheckpointPlan, TheLargestConfigDoesNotWrapAround) {
  ModelConfig c;
  c.vocab_size = 1u << 22, c.hidden_size = 1u << 16;
  c.intermediate_size = c.moe_intermediate_size = 1u << 20;
  c.num_hidden_layers = 1u << 10, c.num_nextn_predict_layers = 16;
  c.num_attention_heads = 1u << 12, c.q_lora_rank = c.kv_lora_rank = 1u << 14;
  c.qk_nope_head_dim = c.qk_rope_head_dim = c.v_head_dim = 1u << 12;
  c.n_routed_experts = c.num_experts_per_tok = 1u << 12, c.n_shared_experts = 1u << 6;
  c.max_position_embeddings = 1u << 27;
  ModelOptions o;
  o.max_tokens = o.max_decode_rows = o.max_logit_rows = o.expansion_rows = 1u << 16;
  o.max_context = 1u << 27;
  const uint64_t t = o.max_tokens, routed = t * c.num_experts_per_tok;
  const uint64_t logits = t * c.vocab_size * 4;
  const uint64_t rope = uint64_t{o.max_context} * c.qk_rope_head_dim * 4;
  const uint64_t experts = routed * c.moe_intermediate_size * (4 * 3 + 1);
  const uint64_t partials =
      t * (o.max_context / 1024) * c.num_attention_heads * (c.kv_lora_rank + 2) * 4;
  const uint64_t bytes = workspace_bytes(c, o);
  EXPECT_GT(bytes, logits + rope + experts + partials);
  EXPECT_LT(bytes, 2 * (logits + rope + experts + partials));
  EXPECT_EQ(cache_bytes(c, 1u << 21, CacheFormat::kF32),
            uint64_t{1040} * (uint64_t{1} << 27) * ((1u << 14) + (1u << 12)) * 4);
  EXPECT_FALSE(check_supported(c).ok());
}

}  // namespace
}  // namespace hadal::model
