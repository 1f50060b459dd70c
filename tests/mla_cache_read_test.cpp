// mla_cache_read: exact gathers through scattered pages, every choice of outputs, every row format.
#include "hadal/mla_cache_read.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_cache_row.h"
#include "hadal/reference/fp8_quantize.h"
#include "hadal/reference/mla_cache_read.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"

namespace hadal::test {
namespace {

struct Problem {
  MlaCacheReadShape shape;
  std::vector<float> cache;  // values that bfloat16 holds; rows of no page are NaN
  std::vector<uint32_t> table;
  std::vector<uint8_t> fp8_cache;  // instead, after store_fp8

  Problem(uint32_t begin, uint32_t rows, uint32_t rank, uint32_t rope, uint32_t seed) {
    Random random(seed);
    shape = MlaCacheReadShape::packed(begin, rows, rank, rope, 7 * 64);
    shape.row_stride += seed % 3, shape.latent_stride += seed % 2, shape.k_pe_stride += 1;
    shape.q_stride += 16, shape.scale_stride += 1, shape.table_pages += 2;
    cache.assign(size_t(shape.cache_rows) * shape.row_stride, NAN);
    table.assign(shape.table_pages, 0x7fffffffu);  // entries past the end are never read
    for (uint32_t p = begin; p < begin + rows; ++p) {
      table[p / 64] = (p / 64 * 3 + 5) % 7;
      const size_t slot = size_t(table[p / 64]) * 64 + p % 64;
      for (uint32_t c = 0; c < rank + rope; ++c) {
        cache[slot * shape.row_stride + c] =
            reference::bf16_decode(reference::bf16_encode(random.normal()));
      }
    }
  }
};

// The same rows in FP8 form; of the first one all codes are seen.
void store_fp8(Problem& p, ScaleFormat format) {
  MlaCacheReadShape& s = p.shape;
  const size_t stride = reference::fp8_cache_row_bytes(s.rank, s.rope) + s.row_stride % 2 * 16;
  p.fp8_cache.assign(s.cache_rows * stride, 0xff);
  for (uint32_t i = s.begin; i < s.begin + s.rows; ++i) {
    const size_t slot = size_t(p.table[i / 64]) * 64 + i % 64;
    auto row =
        reference::Fp8CacheRow::quantize(&p.cache[slot * s.row_stride], s.rank, s.rope, format);
    for (uint32_t c = 0; i == s.begin && c < s.rank; ++c) {
      row.codes[c] = uint8_t(c % 127 | (c / 127 % 2 ? 0x80 : 0));  // but the NaNs
    }
    if (i == s.begin + 1) std::fill(row.scales.begin(), row.scales.end(), NAN);
    row.write(&p.fp8_cache[slot * stride]);
  }
  s.cache_format = CacheFormat::kFp8, s.row_stride = uint32_t(stride);
}

struct Outputs {
  std::vector<float> latent, k_pe, scale;
  std::vector<uint8_t> q;
};

Outputs run(const Problem& p, bool want_latent, bool want_k_pe, bool want_q) {
  const MlaCacheReadShape& s = p.shape;
  GpuCase gpu(*device());
  std::vector<uint16_t> codes;
  for (float v : p.cache) codes.push_back(reference::bf16_encode(v));
  GuardedBuffer& cache = s.cache_format == CacheFormat::kF32    ? gpu.input(p.cache)
                         : s.cache_format == CacheFormat::kBf16 ? gpu.input(codes)
                                                                : gpu.input(p.fp8_cache);
  GuardedBuffer& table = gpu.input(p.table);
  GuardedBuffer& latent = gpu.output(uint64_t{s.rows} * s.latent_stride * 4);
  GuardedBuffer& k_pe = gpu.output(uint64_t{s.rows} * s.k_pe_stride * 4);
  GuardedBuffer& q = gpu.output(uint64_t{s.rows} * s.q_stride);
  GuardedBuffer& scale = gpu.output(uint64_t{s.rows} * s.scale_stride * 4);
  Result<MlaCacheRead> kernel =
      MlaCacheRead::create(*device(), mla_cache_read_choose(s, device()->caps()));
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, s,
        {cache.address(), table.address(), want_latent ? latent.address() : 0,
         want_k_pe ? k_pe.address() : 0, want_q ? q.address() : 0, want_q ? scale.address() : 0});
  });
  return {gpu.rows<float>(latent, s.rows, s.rank, s.latent_stride),
          gpu.rows<float>(k_pe, s.rows, s.rope, s.k_pe_stride),
          gpu.rows<float>(scale, s.rows, ceil_div(s.rank, 128), s.scale_stride),
          gpu.rows<uint8_t>(q, s.rows, s.rank, s.q_stride)};
}

void expect_matches_reference(const Problem& p, bool latent, bool k_pe, bool q) {
  const auto rows = reference::mla_cache_read(p.shape, p.cache.data(), p.table.data());
  const auto quantized = reference::fp8_quantize(p.shape.rows, p.shape.rank, rows.latent.data(),
                                                 p.shape.rank, p.shape.scale_format);
  const Outputs out = run(p, latent, k_pe, q);
  const auto untouched = [](const std::vector<float>& like) {
    return std::vector<float>(like.size(), NAN);
  };
  EXPECT_TRUE(same_bits(out.latent, latent ? rows.latent : untouched(rows.latent), 1));
  EXPECT_TRUE(same_bits(out.k_pe, k_pe ? rows.k_pe : untouched(rows.k_pe), 1));
  EXPECT_TRUE(same_bits(out.scale, q ? quantized.scales : untouched(quantized.scales), 1));
  EXPECT_EQ(out.q, q ? quantized.codes : std::vector<uint8_t>(quantized.codes.size(), 0xff));
}

void expect_matches_fp8_reference(const Problem& p, bool latent, bool k_pe, bool q) {
  const MlaCacheReadShape& s = p.shape;
  const auto rows = reference::mla_cache_read_fp8(s, p.fp8_cache.data(), p.table.data());
  const Outputs out = run(p, latent, k_pe, q);
  const auto or_untouched = [](bool wanted, const std::vector<float>& values) {
    return wanted ? values : std::vector<float>(values.size(), NAN);
  };
  EXPECT_TRUE(same_bits(out.latent, or_untouched(latent, rows.latent), std::max(s.rank, 1u)));
  EXPECT_TRUE(same_bits(out.k_pe, or_untouched(k_pe, rows.k_pe), std::max(s.rope, 1u)));
  EXPECT_TRUE(same_bits(out.scale, or_untouched(q, rows.scale), 1));
  EXPECT_EQ(out.q, q ? rows.q : std::vector<uint8_t>(rows.q.size(), 0xff));
}

class MlaCacheReadGpu : public GpuTest {};

TEST_F(MlaCacheReadGpu, GathersExactlyWhatIsWanted) {
  uint32_t seed = 1;
  for (auto [begin, rows, rank, rope] : {std::array{0u, 1u, 512u, 64u},
                                         {63u, 2u, 64u, 16u},
                                         {17u, 130u, 33u, 7u},
                                         {128u, 65u, 131u, 10u},
                                         {191u, 3u, 1u, 1u}}) {
    Problem p(begin, rows, rank, rope, seed);
    for (CacheFormat type : {CacheFormat::kF32, CacheFormat::kBf16}) {
      p.shape.cache_format = type;
      p.shape.scale_format = seed++ % 2 ? ScaleFormat::kFp32 : ScaleFormat::kUe8m0;
      expect_matches_reference(p, true, true, true);
    }
    expect_matches_reference(p, true, false, false);
    expect_matches_reference(p, false, true, true);
  }
}

// Codes and scales come out as they are stored, whatever the scale format asked for; latents are
// code * scale rounded once.
TEST_F(MlaCacheReadGpu, Fp8RowsGiveTheirCodesAndScales) {
  uint32_t seed = 11;
  for (const auto& [begin, rows, rank, rope] : {std::array{0u, 2u, 512u, 64u},
                                                {63u, 2u, 8u, 0u},
                                                {17u, 70u, 72u, 8u},
                                                {128u, 65u, 136u, 64u},
                                                {60u, 9u, 520u, 8u},
                                                {5u, 3u, 61u, 7u},
                                                {191u, 3u, 1u, 1u}}) {
    for (const ScaleFormat format : {ScaleFormat::kFp32, ScaleFormat::kUe8m0}) {
      Problem p(begin, rows, rank, rope, seed++);
      p.shape.scale_format = seed % 3 ? ScaleFormat::kFp32 : ScaleFormat::kUe8m0;  // ignored
      store_fp8(p, format);
      expect_matches_fp8_reference(p, true, true, true);
      expect_matches_fp8_reference(p, true, false, false);
      expect_matches_fp8_reference(p, false, true, true);
    }
  }
}

TEST_F(MlaCacheReadGpu, AnFp8PagePastTheCacheReadsAsNan) {
  Problem p(60, 8, 136, 4, 3);
  store_fp8(p, ScaleFormat::kFp32);
  for (const uint32_t page : {7u, 0x7fffffffu}) {
    p.table[1] = page;
    const Outputs out = run(p, true, true, true);
    for (uint32_t r = 2; r < 8; ++r) {  // row 1 is NaN anyway
      for (uint32_t c = 0; c < 136; ++c) {
        EXPECT_EQ(std::isnan(out.latent[r * 136 + c]), r >= 4) << r << ' ' << c;
        EXPECT_TRUE(r < 4 || out.q[r * 136 + c] == 0) << r << ' ' << c;
      }
      EXPECT_EQ(std::isnan(out.scale[r * 2 + 1]), r >= 4) << r;
      EXPECT_EQ(std::isnan(out.k_pe[r * 4 + 3]), r >= 4) << r;
    }
  }
}

TEST_F(MlaCacheReadGpu, APagePastTheCacheReadsAsNan) {
  Problem p(60, 8, 16, 4, 3);
  p.table[1] = 7;
  const Outputs out = run(p, true, true, false);
  for (uint32_t r = 0; r < 8; ++r) {
    EXPECT_EQ(std::isnan(out.latent[r * 16]), r >= 4) << r;
    EXPECT_EQ(std::isnan(out.k_pe[r * 4 + 3]), r >= 4) << r;
  }
}

TEST_F(MlaCacheReadGpu, EmptyProblemsAreDefined) {
  expect_matches_reference(Problem(5, 0, 16, 4, 1), true, true, true);
  expect_matches_reference(Problem(5, 3, 0, 4, 1), true, true, false);
  expect_matches_reference(Problem(5, 3, 9, 0, 1), true, true, true);
}

TEST_F(MlaCacheReadGpu, RefusesAMisalignedFp8Cache) {
  const auto s = MlaCacheReadShape::packed(0, 8, 32, 8, 128, CacheFormat::kFp8);
  const auto kernel = MlaCacheRead::create(*device(), mla_cache_read_choose(s, device()->caps()));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  MlaCacheReadArgs args;
  args.cache = 0x1008;
  EXPECT_EQ(kernel->record(*recorder, s, args).message(),
            "mla_cache_read: cache must be 16-byte aligned, got 0x1008");
}

TEST(MlaCacheReadHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(MlaCacheReadShape&)>& change) {
    MlaCacheReadShape shape = MlaCacheReadShape::packed(60, 8, 130, 8, 128);
    change(shape);
    const Status status = mla_cache_read_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(mla_cache_read_check(MlaCacheReadShape::packed(60, 8, 130, 8, 128), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.rope = 1u << 24; }),
            "mla_cache_read: rank + rope must be at most 16777216, got 16777346");
  EXPECT_EQ(refused([](auto& s) { s.row_stride = 137; }),
            "mla_cache_read: row_stride must be at least rank + rope, got 137 < 138");
  EXPECT_EQ(refused([](auto& s) { s.cache_format = CacheFormat::kFp8, s.row_stride = 144; }),
            "mla_cache_read: row_stride must be at least the bytes of an fp8 row, got 144 < 160");
  EXPECT_EQ(refused([](auto& s) { s.cache_format = CacheFormat::kFp8, s.row_stride = 168; }),
            "mla_cache_read: row_stride must be a multiple of 16 bytes, got 168");
  EXPECT_EQ(refused([](auto& s) { s.latent_stride = 129; }),
            "mla_cache_read: latent_stride must be at least rank, got 129 < 130");
  EXPECT_EQ(refused([](auto& s) { s.k_pe_stride = 7; }),
            "mla_cache_read: k_pe_stride must be at least rope, got 7 < 8");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 128; }),
            "mla_cache_read: q_stride must be at least rank, got 128 < 130");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 131; }),
            "mla_cache_read: q_stride must be a multiple of 16 bytes, got 131");
  EXPECT_EQ(refused([](auto& s) { s.scale_stride = 1; }),
            "mla_cache_read: scale_stride must be at least ceil(rank/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.table_pages = 1; }),
            "mla_cache_read: begin + rows must be at most 64 * table_pages, got 68 > 64");
  EXPECT_EQ(refused([](auto& s) { s.rows = 65536, s.table_pages = 2000; }),
            "mla_cache_read: rows must be at most 65535, got 65536");
}

}  // namespace
}  // namespace hadal::test
