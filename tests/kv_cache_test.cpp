// Pages of the latent cache: host policy only.
#include "hadal/runtime/kv_cache.h"

#include <gtest/gtest.h>

#include <set>

namespace hadal::runtime {
namespace {

TEST(KvCacheHost, PagesAreHandedOutLowestFirstAndComeBack) {
  PageAllocator allocator(5);
  auto first = allocator.take(3);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*first, (std::vector<uint32_t>{0, 1, 2}));
  allocator.give_back(std::vector<uint32_t>{1});
  EXPECT_EQ(*allocator.take(2), (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(allocator.free_pages(), 1u);
}

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

TEST(KvCacheHost, TooFewPagesIsAnErrorThatTakesNothing) {
  PageAllocator allocator(2);
  const auto refused = allocator.take(3);
  EXPECT_EQ(refused.status().code(), Errc::kOutOfDeviceMemory);
  EXPECT_EQ(refused.status().message(),
            "kv_cache: 3 pages of 64 tokens are needed, 2 of 2 are free");
  EXPECT_EQ(allocator.free_pages(), 2u);
}

TEST(KvCacheHost, ASequenceMapsPositionsToRowsOfItsPages) {
  PageAllocator allocator(8);
  SequencePages other(allocator), sequence(allocator);
  ASSERT_TRUE(other.reserve(1).ok());
  ASSERT_TRUE(sequence.reserve(64).ok());
  ASSERT_TRUE(other.reserve(65).ok());
  ASSERT_TRUE(sequence.reserve(130).ok());
  EXPECT_EQ(sequence.slot(0), 64u);  // page 1
  EXPECT_EQ(sequence.slot(63), 127u);
  EXPECT_EQ(sequence.slot(64), 3u * 64);  // page 2 went to the other one
  EXPECT_EQ(sequence.slot(129), 4u * 64 + 1);
  EXPECT_EQ(sequence.capacity(), 192u);
  std::set<uint32_t> pages(other.block_table().begin(), other.block_table().end());
  for (uint32_t page : sequence.block_table()) EXPECT_TRUE(pages.insert(page).second);
}

TEST(KvCacheHost, PagesReturnWhenASequenceEndsOrMoves) {
  PageAllocator allocator(4);
  {
    SequencePages a(allocator);
    ASSERT_TRUE(a.reserve(200).ok());
    SequencePages b(std::move(a));
    EXPECT_EQ(allocator.free_pages(), 0u);
    SequencePages c(allocator);
    c = std::move(b);
    EXPECT_EQ(c.block_table().size(), 4u);
    EXPECT_EQ(allocator.free_pages(), 0u);
    EXPECT_FALSE(c.reserve(257).ok());
    EXPECT_EQ(c.capacity(), 256u);
  }
  EXPECT_EQ(allocator.free_pages(), 4u);
}

}  // namespace
}  // namespace hadal::runtime
