// Rows of the latent cache: sizes and offsets, which the reference side computes on its own.
#include "hadal/cache_format.h"

#include <gtest/gtest.h>

namespace hadal::test {
namespace {

TEST(CacheFormatHost, AnFp8RowIsCodesScalesAndTheKeyPaddedTo16Bytes) {
  struct Row {
    uint32_t rank, rope, scales, key, bytes;
  };
  for (const Row& r : {Row{512, 64, 512, 528, 656},  // FlashMLA's
                       Row{8, 0, 8, 12, 16}, Row{72, 8, 72, 76, 96}, Row{136, 8, 136, 144, 160},
                       Row{520, 64, 520, 540, 672}, Row{61, 6, 64, 68, 80}, Row{0, 8, 0, 0, 16},
                       Row{0, 0, 0, 0, 0}}) {
    EXPECT_EQ(cache_fp8_scales_offset(r.rank), r.scales) << r.rank;
    EXPECT_EQ(cache_fp8_rope_offset(r.rank), r.key) << r.rank;
    EXPECT_EQ(cache_row_width(CacheFormat::kFp8, r.rank, r.rope), r.bytes) << r.rank;
    EXPECT_EQ(cache_row_stride(CacheFormat::kFp8, r.rank, r.rope), r.bytes) << r.rank;
  }
}

TEST(CacheFormatHost, OtherRowsAreElements) {
  for (const CacheFormat format : {CacheFormat::kF32, CacheFormat::kBf16}) {
    EXPECT_EQ(cache_row_width(format, 512, 64), 576u);
    EXPECT_EQ(cache_row_width(format, 61, 6), 67u);
    EXPECT_EQ(cache_row_stride(format, 61, 6), 72u);
    EXPECT_EQ(cache_row_width(format, 1u << 30, ~0u), (uint64_t{1} << 30) + ~0u);
  }
  EXPECT_EQ(cache_stride_unit(CacheFormat::kF32), 4u);
  EXPECT_EQ(cache_stride_unit(CacheFormat::kBf16), 2u);
  EXPECT_EQ(cache_stride_unit(CacheFormat::kFp8), 1u);
}

TEST(CacheFormatHost, NamesAreTheProgramsWords) {
  EXPECT_EQ(cache_format_name(CacheFormat::kF32), "f32");
  EXPECT_EQ(cache_format_name(CacheFormat::kBf16), "bf16");
  EXPECT_EQ(cache_format_name(CacheFormat::kFp8), "fp8");
}

}  // namespace
}  // namespace hadal::test
