// What fits on a device: DeepSeek-V3's numbers, checkpoints that exist, tiny devices.
#include "hadal/runtime/memory_plan.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "hadal/model/safetensors.h"

namespace hadal::runtime {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

model::ModelConfig v3() {
  model::ModelConfig c;
  c.vocab_size = 129280, c.hidden_size = 7168, c.intermediate_size = 18432;
  c.moe_intermediate_size = 2048, c.num_hidden_layers = 61, c.first_k_dense_replace = 3;
  c.moe_layer_freq = 1, c.num_attention_heads = 128, c.q_lora_rank = 1536, c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128, c.qk_rope_head_dim = 64, c.v_head_dim = 128;
  c.n_routed_experts = 256, c.num_experts_per_tok = 8, c.n_shared_experts = 1;
  c.topk_method = model::TopkMethod::kNoauxTc, c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 163840, c.weight_format = model::WeightFormat::kFp8Block;
  return c;
}

Caps device(uint64_t free_bytes, uint64_t largest = UINT64_MAX) {
  Caps caps = minimum_caps();
  caps.device_heap_free_bytes = caps.device_heap_bytes = free_bytes;
  caps.max_allocation_bytes = caps.max_buffer_bytes = largest;
  return caps;
}

model::ModelOptions options_of(uint32_t context) {
  model::ModelOptions options;
  options.max_context = context;
  return options;
}

// DeepSeek-V3's report: 671 B parameters, a number rounded to 0.5 B, each a byte but for embedding
// and head (129,280 x 7,168 each) and 58 routers (256 x 7,168), which have two; and four bytes for
// every 128 x 128.
TEST(MemoryPlanHost, WeightsOfDeepseekV3) {
  model::LoadOptions main_only;
  main_only.load_mtp = false;
  const double parameters = 671e9, second_bytes = 2 * 129280.0 * 7168 + 58 * 256.0 * 7168;
  const uint64_t main = model::weights_device_bytes(v3(), main_only);
  EXPECT_NEAR(double(main), parameters * (1 + 4.0 / 16384) + second_bytes, 0.5e9);
  // The MTP module by hand: 257 experts, attention, a router and eh_proj of two bytes, norms, the
  // router's bias, three tables. Rounded up to 256 bytes are q_a_proj's scales, 12 rows of 56
  // floats, and kv_a_proj's, 5 for its 4.5 blocks.
  const double fp8 = 257 * 3 * 7168.0 * 2048 + 7168 * 1536.0 + 1536 * 24576.0 + 7168 * 576.0 +
                     512 * 32768.0 + 16384 * 7168.0;
  const double bf16 = 256 * 7168.0 + 7168 * 14336.0, f32 = 5 * 7168 + 1536 + 512 + 256;
  const double want = fp8 * (1 + 4.0 / 16384) + 2 * bf16 + 4 * f32 + 3 * 256 * 16;
  const double mtp = double(model::weights_device_bytes(v3()) - main);
  EXPECT_EQ(mtp, want + (2816 - 12 * 56 * 4) + (1280 - 4.5 * 56 * 4));
}

TEST(MemoryPlanHost, TheConfigAloneSaysWhatTheCheckpointSays) {
  const std::filesystem::path root = HADAL_SOURCE_DIR;
  std::vector<std::filesystem::path> dirs = {root / "examples/models/fables"};
  for (const auto& entry : std::filesystem::directory_iterator(root / "tests/golden")) {
    if (std::filesystem::exists(entry.path() / "config.json")) dirs.push_back(entry.path());
  }
  EXPECT_GE(dirs.size(), 6u);
  for (const auto& dir : dirs) {
    const auto config = model::load_config(dir);
    const auto checkpoint = model::Checkpoint::open(dir);
    ASSERT_TRUE(config.ok() && checkpoint.ok()) << dir;
    for (const bool more : {false, true}) {
      model::LoadOptions options;
      options.load_mtp = options.absorb_bf16 = more;
      const auto want = model::weights_device_bytes(*checkpoint, *config, options);
      ASSERT_TRUE(want.ok()) << want.status().message();
      EXPECT_EQ(model::weights_device_bytes(*config, options), *want) << dir << ' ' << more;
    }
  }
}

// An FP8 row has 656 bytes; 62 layers with the MTP module's: 40,672 bytes a token, 6.2 GiB for
// 163,840 positions.
TEST(MemoryPlanHost, LongContextsOfDeepseekV3) {
  const uint64_t weights = model::weights_device_bytes(v3());
  const MemoryPlan plan =
      plan_memory(v3(), weights, options_of(163840), CacheFormat::kFp8, device(1024 * kGiB));
  EXPECT_EQ(plan.page_bytes, 64u * 656 * 62);
  EXPECT_EQ(plan.pages_per_sequence(), 2560u);
  EXPECT_EQ(plan.longest_context, 163840u);
  const uint64_t left = 1024 * kGiB - weights - plan.workspace_bytes;
  EXPECT_EQ(plan.sequences(), left / (2560 * plan.page_bytes));
  EXPECT_GT(plan.sequences(), 50u);
  EXPECT_TRUE(plan.check(2560).ok());
  // 640 GiB (8 x 80) hold the weights and next to nothing; 512 GiB do not.
  EXPECT_EQ(plan_memory(v3(), weights, options_of(4096), CacheFormat::kFp8, device(512 * kGiB))
                .longest_context,
            0u);
}

// At the border: the longest context fits to the byte, one position more does not.
TEST(MemoryPlanHost, TheLongestContextIsTheLongest) {
  const model::ModelConfig config = v3();
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kFp8}) {
    for (const uint32_t context : {64u, 65u, 1000u, 4096u, 100000u}) {
      const uint64_t weights = 5 * kGiB, page = model::cache_bytes(config, 1, format);
      model::ModelOptions options = options_of(context);
      options.max_tokens = std::min(options.max_tokens, context);
      const uint64_t exactly =
          weights + model::workspace_bytes(config, options) + (context + 63) / 64 * page;
      const auto plan = [&](uint64_t free_bytes) {
        return plan_memory(config, weights, options, format, device(free_bytes));
      };
      EXPECT_GE(plan(exactly).longest_context, context);
      EXPECT_LT(plan(exactly - 1).longest_context, context);
      EXPECT_EQ(plan(exactly).most_pages, (context + 63) / 64);
      EXPECT_EQ(plan(exactly - 1).most_pages, (context + 63) / 64 - 1);
      EXPECT_TRUE(plan(exactly).check((context + 63) / 64).ok());
      EXPECT_FALSE(plan(exactly - 1).check((context + 63) / 64).ok());
    }
  }
}

TEST(MemoryPlanHost, OneBufferHoldsTheCache) {
  const uint64_t page = model::cache_bytes(v3(), 1, CacheFormat::kFp8);
  const MemoryPlan plan = plan_memory(v3(), kGiB, options_of(4096), CacheFormat::kFp8,
                                      device(100 * kGiB, 1000 * page + page / 2));
  EXPECT_EQ(plan.most_pages, 1000u);
  EXPECT_EQ(plan.longest_context, 64000u);
  EXPECT_TRUE(plan.check(1000).ok());
  const std::string want = fmt::format(
      "memory: {:.1f} GiB are needed (weights 1.0 GiB, workspace {:.1f} MiB, cache of 64064 "
      "positions 2.4 GiB), the device allows 2.4 GiB in one buffer; a context of 64000 for one "
      "sequence would fit",
      double(plan.needed_bytes(1001)) / kGiB, double(plan.workspace_bytes) / (1 << 20));
  EXPECT_EQ(plan.check(1001).message(), want);
}

TEST(MemoryPlanHost, ATinyDeviceIsTold) {
  const MemoryPlan plan =
      plan_memory(v3(), 3 * kGiB, options_of(163840), CacheFormat::kF32, device(2 * kGiB));
  EXPECT_EQ(plan.most_pages, 0u);
  EXPECT_EQ(plan.sequences(), 0u);
  EXPECT_EQ(plan.longest_context, 0u);
  const Status status = plan.check(2560);
  EXPECT_EQ(status.code(), Errc::kOutOfDeviceMemory);
  EXPECT_NE(status.message().find("the device has 2.0 GiB free; not even one position would fit"),
            std::string::npos)
      << status.message();
}

}  // namespace
}  // namespace hadal::runtime
