// Device memory of the latent cache.
#include "hadal/runtime/kv_cache.h"

#include <gtest/gtest.h>

namespace hadal::runtime {
namespace {

// A row of each form at DeepSeek-V3's 512 + 64, and the 40,016 bytes that its 61 layers take of an
// FP8 cache per token.
TEST(KvCacheHost, BytesFollowTheRowsForm) {
  model::ModelConfig config;
  config.kv_lora_rank = 512, config.qk_rope_head_dim = 64;
  config.num_hidden_layers = 61, config.num_nextn_predict_layers = 0;
  EXPECT_EQ(model::cache_bytes(config, 3, CacheFormat::kF32), 3u * 64 * 61 * 2304);
  EXPECT_EQ(model::cache_bytes(config, 3, CacheFormat::kBf16), 3u * 64 * 61 * 1152);
  EXPECT_EQ(model::cache_bytes(config, 3, CacheFormat::kFp8), 3u * 64 * 40016);
}

}  // namespace
}  // namespace hadal::runtime
