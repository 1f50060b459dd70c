// Pages of the cache to host memory and back, in every form of rows.
#include "hadal/runtime/page_transfer.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/gpu.h"
#include "support/random.h"

namespace hadal::test {
namespace {

using runtime::HostPages;
using runtime::KvCache;
using runtime::PageMove;
using runtime::PageMoves;
using runtime::PageTransfer;

class PageTransferGpu : public GpuTest {};

constexpr uint32_t kPages = 7;

// 2 layers and an MTP layer of 7 pages, every byte random.
struct Filled {
  KvCache cache;
  std::vector<std::byte> bytes;
  Filled(CacheFormat format, uint32_t seed) : cache(make(format)), bytes(cache.bytes()) {
    Random random(seed);
    for (std::byte& b : bytes) b = std::byte(random.below(256));
    EXPECT_TRUE(device()->upload(cache.buffer(), 0, bytes).ok());
  }
  static KvCache make(CacheFormat format) {
    model::ModelConfig config;
    config.kv_lora_rank = 40, config.qk_rope_head_dim = 6;  // rows with padding
    config.num_hidden_layers = 2, config.num_nextn_predict_layers = 1;
    auto cache = KvCache::create(*device(), config, kPages, format);
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    return std::move(cache).value();
  }
  // Page `page` of `layer` in what the cache held at first: the layout of CacheView.
  [[nodiscard]] std::span<std::byte> piece(uint32_t layer, uint32_t page) {
    const size_t piece = bytes.size() / (3 * kPages);
    return std::span(bytes).subspan((layer * kPages + page) * piece, piece);
  }
  [[nodiscard]] std::vector<std::byte> now() {
    std::vector<std::byte> result(bytes.size());
    EXPECT_TRUE(device()->download(cache.buffer(), 0, result).ok());
    return result;
  }
};

TEST_F(PageTransferGpu, PagesOfAllLayersMoveOutAndIntoOthers) {
  RecorderOptions checked;
  checked.check_hazards = checked.reverse_between_barriers = true;
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBf16, CacheFormat::kFp8}) {
    SCOPED_TRACE(cache_format_name(format));
    Filled filled(format, 3);
    auto transfer = PageTransfer::create(*device(), filled.cache, checked);
    ASSERT_TRUE(transfer.ok()) << transfer.status().message();
    EXPECT_EQ(transfer->page_bytes() * kPages, filled.cache.bytes());
    auto host = HostPages::create(*device(), transfer->page_bytes(), 4);
    ASSERT_TRUE(host.ok());
    // 5 and 2 leave; what was 5 comes back at 2, whose rows have left already, and what was 2 at 6.
    const std::vector<PageMove> out{{5, 3}, {2, 0}}, in{{2, 3}, {6, 0}};
    const PageMoves outs{&*host, out}, ins{&*host, in};
    ASSERT_TRUE(transfer->run({&outs, 1}, {&ins, 1}).ok());
    std::vector<std::byte> left;
    for (uint32_t layer = 0; layer < 3; ++layer) {
      const auto piece = filled.piece(layer, 5);
      left.insert(left.end(), piece.begin(), piece.end());
    }
    EXPECT_EQ(std::memcmp(host->bytes(3).data(), left.data(), left.size()), 0);
    for (uint32_t layer = 0; layer < 3; ++layer) {
      std::memcpy(filled.piece(layer, 6).data(), filled.piece(layer, 2).data(),
                  filled.piece(layer, 2).size());
      std::memcpy(filled.piece(layer, 2).data(), filled.piece(layer, 5).data(),
                  filled.piece(layer, 5).size());
    }
    EXPECT_EQ(filled.now(), filled.bytes);  // and nothing else has changed
  }
}

TEST_F(PageTransferGpu, RefusesPagesThatAreNotThere) {
  Filled filled(CacheFormat::kF32, 4);
  auto transfer = PageTransfer::create(*device(), filled.cache);
  auto host = HostPages::create(*device(), transfer->page_bytes(), 2);
  ASSERT_TRUE(transfer.ok() && host.ok());
  const auto message = [&](PageMove move) {
    const PageMoves moves{&*host, {&move, 1}};
    EXPECT_EQ(transfer->run({&moves, 1}, {}).message(), transfer->run({}, {&moves, 1}).message());
    return transfer->run({&moves, 1}, {}).message();
  };
  EXPECT_EQ(message({kPages, 0}), "page_transfer: pages of the cache must be below 7, got 7");
  EXPECT_EQ(message({0, 2}), "page_transfer: host pages must be below 2, got 2");
  EXPECT_TRUE(transfer->run({}, {}).ok());
  EXPECT_EQ(filled.now(), filled.bytes);
}

}  // namespace
}  // namespace hadal::test
