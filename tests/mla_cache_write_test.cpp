// mla_cache_write against its reference: scattered slots, skipped tokens, every row format.
#include "hadal/mla_cache_write.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_cache_row.h"
#include "hadal/reference/fp8_quantize.h"
#include "hadal/reference/mla_cache_write.h"
#include "hadal/rope.h"
#include "layout/kv_page.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  MlaCacheWriteShape shape;
  std::vector<float> y, weight, table;
  std::vector<uint32_t> positions, slots;

  Problem(uint32_t tokens, uint32_t rank, uint32_t rope, uint32_t seed) {
    Random random(seed);
    shape = MlaCacheWriteShape::packed(tokens, rank, rope, 3 * 64, 100);
    shape.y_stride += seed % 3, shape.row_stride += seed % 4;
    y = random.normals(size_t(tokens) * shape.y_stride, 2.0f);
    weight = random.uniforms(rank, -1.5f, 1.5f);
    std::vector<double> f;
    for (uint32_t i = 0; i < rope / 2; ++i) f.push_back(std::pow(1000.0, -2.0 * i / rope));
    table = rope_table(f, 1.0, 0, shape.max_position);
    for (uint32_t t = 0; t < tokens; ++t) {
      positions.push_back(random.below(100));
      slots.push_back((t * 71 + seed) % shape.cache_rows);  // 71 is coprime to 192: all different
    }
  }
  [[nodiscard]] size_t width() const { return size_t(shape.rank) + shape.rope; }
};

// The cache's bytes.
std::vector<uint8_t> run_bytes(const Problem& p) {
  GpuCase gpu(*device());
  GuardedBuffer& y = gpu.input(p.y);
  GuardedBuffer& weight = gpu.input(p.weight);
  GuardedBuffer& positions = gpu.input(p.positions);
  GuardedBuffer& table = gpu.input(p.table);
  GuardedBuffer& slots = gpu.input(p.slots);
  GuardedBuffer& cache = gpu.output(uint64_t{p.shape.cache_rows} * p.shape.row_stride *
                                    cache_stride_unit(p.shape.cache_format));
  Result<MlaCacheWrite> kernel =
      MlaCacheWrite::create(*device(), mla_cache_write_choose(p.shape, device()->caps()));
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, p.shape,
                          {y.address(), weight.address(), positions.address(), table.address(),
                           slots.address(), cache.address()});
  });
  return gpu.values<uint8_t>(cache);
}

template <class T>
T load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// The cache's rows as float; unwritten rows and padding must keep their NaN.
std::vector<float> run(const Problem& p) {
  const std::vector<uint8_t> bytes = run_bytes(p);
  const size_t unit = cache_stride_unit(p.shape.cache_format);
  std::vector<float> result;
  for (size_t i = 0; i < bytes.size() / unit; ++i) {
    const float value = unit == 4 ? load<float>(&bytes[4 * i])
                                  : reference::bf16_decode(load<uint16_t>(&bytes[2 * i]));
    if (i % p.shape.row_stride < p.width()) {
      result.push_back(value);
    } else {
      EXPECT_TRUE(std::isnan(value)) << "padding written: " << i;
    }
  }
  return result;
}

// The rows of an FP8 cache; what is between a row's parts and behind them must keep its 0xff.
std::vector<reference::Fp8CacheRow> run_fp8(Problem p, LatentRounding rounding) {
  p.shape.cache_format = CacheFormat::kFp8, p.shape.rounding = rounding;
  p.shape.row_stride =
      reference::fp8_cache_row_bytes(p.shape.rank, p.shape.rope) + p.shape.y_stride % 2 * 16;
  const std::vector<uint8_t> bytes = run_bytes(p);
  std::vector<reference::Fp8CacheRow> rows;
  for (uint32_t r = 0; r < p.shape.cache_rows; ++r) {
    const uint8_t* row = &bytes[size_t(r) * p.shape.row_stride];
    rows.push_back(reference::Fp8CacheRow::read(row, p.shape.rank, p.shape.rope));
    std::vector<uint8_t> expected(p.shape.row_stride, 0xff);
    rows.back().write(expected.data());
    EXPECT_EQ(std::vector<uint8_t>(row, row + p.shape.row_stride), expected) << "row " << r;
  }
  return rows;
}

void expect_matches_reference(const Problem& p) {
  const auto rows = reference::mla_cache_write(
      p.shape, {p.y.data(), p.weight.data(), p.positions.data(), p.table.data()});
  const size_t width = p.width();
  std::vector<double> value(p.shape.cache_rows * width, NAN), magnitude(value.size(), 0.0);
  for (uint32_t t = 0; t < p.shape.tokens; ++t) {
    if (p.slots[t] >= p.shape.cache_rows) continue;
    for (size_t c = 0; c < width; ++c) {
      value[p.slots[t] * width + c] = rows.value[t * width + c];
      magnitude[p.slots[t] * width + c] = rows.magnitude[t * width + c];
    }
  }
  const double u_out = p.shape.cache_format == CacheFormat::kBf16 ? kUBf16 : 0.0;
  EXPECT_TRUE(matches(
      fmt::format("mla_cache_write {}x({}+{})", p.shape.tokens, p.shape.rank, p.shape.rope), run(p),
      value, width, [&](size_t i) {
        const double error = i % width < p.shape.rank ? rms_norm_bound(p.shape.rank, value[i])
                                                      : rope_bound(magnitude[i]);
        return stored_bound(value[i], error, u_out);
      }));
}

class MlaCacheWriteGpu : public GpuTest {};

TEST_F(MlaCacheWriteGpu, MatchesTheReference) {
  uint32_t seed = 1;
  for (auto [tokens, rank, rope] : {std::array{1u, 512u, 64u},
                                    {7u, 32u, 16u},
                                    {13u, 61u, 6u},
                                    {5u, 1u, 2u},
                                    {3u, 130u, 0u},
                                    {4u, 0u, 10u}}) {
    for (bool interleaved : {true, false}) {
      Problem p(tokens, rank, rope, seed++);
      p.shape.interleaved = interleaved;
      expect_matches_reference(p);
      p.shape.cache_format = CacheFormat::kBf16;
      expect_matches_reference(p);
    }
  }
}

// The rounded latent is exactly what quantising and decoding the unrounded one gives.
TEST_F(MlaCacheWriteGpu, RoundsTheLatentByTheQuantiserRule) {
  for (auto [tokens, rank, rope] :
       {std::array{3u, 512u, 64u}, {5u, 61u, 6u}, {4u, 130u, 8u}, {2u, 1u, 2u}}) {
    for (bool ue8m0 : {false, true}) {
      Problem p(tokens, rank, rope, 40 + rank);
      p.y[p.shape.y_stride] = NAN;  // token 1: its whole row is NaN, rounded or not
      const std::vector<float> plain = run(p);
      p.shape.rounding = ue8m0 ? LatentRounding::kFp8Ue8m0 : LatentRounding::kFp8;
      const std::vector<float> rounded = run(p);
      for (uint32_t t = 0; t < tokens; ++t) {
        const size_t row = p.slots[t] * p.width();
        const auto q = reference::fp8_quantize(1, rank, &plain[row], rank,
                                               ue8m0 ? ScaleFormat::kUe8m0 : ScaleFormat::kFp32);
        for (uint32_t c = 0; c < p.width(); ++c) {
          const float expected =
              c < rank ? reference::e4m3_decode(q.codes[c]) * q.scales[c / 128] : plain[row + c];
          EXPECT_TRUE(same_bits(rounded[row + c], expected))
              << "token " << t << " channel " << c << ": " << rounded[row + c] << " against "
              << expected;
        }
      }
    }
  }
}

// Ranks around groups and words, keys of no, one and many pairs.
constexpr std::array<uint32_t, 3> kFp8Rows[] = {{3, 512, 64}, {5, 8, 0},  {4, 72, 8},  {3, 136, 64},
                                                {2, 520, 8},  {3, 61, 6}, {2, 130, 2}, {2, 1, 0}};

// Codes and scales are those of fp8_quantize of the row that a float cache holds; so are the values
// of a float cache that rounds its latents. The key is the float one, rounded.
TEST_F(MlaCacheWriteGpu, AnFp8RowIsTheQuantisersOfTheFloatRow) {
  for (const auto& [tokens, rank, rope] : kFp8Rows) {
    for (const LatentRounding rounding :
         {LatentRounding::kNone, LatentRounding::kFp8, LatentRounding::kFp8Ue8m0}) {
      Problem p(tokens, rank, rope, 60 + rank + rope);
      p.y[p.shape.y_stride] = NAN;                     // token 1: its latent
      if (tokens > 2) p.positions[2] = 100;            // past the table: its key
      if (tokens > 3) p.slots[3] = layout::kKvNoSlot;  // not stored
      if (tokens > 4) std::fill_n(&p.y[4 * p.shape.y_stride], rank, 0.0f);  // the smallest scale
      const ScaleFormat format =
          rounding == LatentRounding::kFp8Ue8m0 ? ScaleFormat::kUe8m0 : ScaleFormat::kFp32;
      const std::vector<reference::Fp8CacheRow> rows = run_fp8(p, rounding);
      const std::vector<float> plain = run(p);
      Problem as_float = p;
      as_float.shape.rounding = rounding == LatentRounding::kNone ? LatentRounding::kFp8 : rounding;
      const std::vector<float> rounded = run(as_float);
      for (uint32_t t = 0; t < tokens; ++t) {
        if (p.slots[t] == layout::kKvNoSlot) continue;
        const reference::Fp8CacheRow& row = rows[p.slots[t]];
        const float* source = &plain[p.slots[t] * p.width()];
        const auto expected = reference::Fp8CacheRow::quantize(source, rank, rope, format);
        const std::string name = fmt::format("{}+{} {} token {}", rank, rope, int(rounding), t);
        EXPECT_EQ(row.codes, expected.codes) << name;
        EXPECT_TRUE(same_bits(row.scales, expected.scales, 1)) << name;
        for (uint32_t c = 0; c < rope; ++c) {
          EXPECT_TRUE(same_bits(reference::bf16_decode(row.key[c]),
                                reference::bf16_decode(expected.key[c])))
              << name << " key " << c;
        }
        const std::vector<double> values = row.values();
        for (uint32_t c = 0; c < rank; ++c) {
          EXPECT_TRUE(same_bits(float(values[c]), rounded[p.slots[t] * p.width() + c]))
              << name << " channel " << c;
        }
      }
    }
  }
}

// The reference's row within the bound of the float row and the quantiser's own.
TEST_F(MlaCacheWriteGpu, Fp8RowsMatchTheReference) {
  for (const auto& [tokens, rank, rope] : kFp8Rows) {
    for (const bool ue8m0 : {false, true}) {
      const Problem p(tokens, rank, rope, 90 + rank);
      const auto expected = reference::mla_cache_write(
          p.shape, {p.y.data(), p.weight.data(), p.positions.data(), p.table.data()});
      const auto rows = run_fp8(p, ue8m0 ? LatentRounding::kFp8Ue8m0 : LatentRounding::kFp8);
      std::vector<float> values, amax;
      for (uint32_t t = 0; t < tokens; ++t) {
        for (double v : rows[p.slots[t]].values()) values.push_back(float(v));
        for (uint32_t group = 0; group < rank; group += 128) {
          double largest = 0.0;
          for (uint32_t c = group; c < std::min(group + 128, rank); ++c) {
            largest = std::max(largest, std::fabs(expected.value[t * p.width() + c]));
          }
          amax.push_back(float(largest));
        }
      }
      EXPECT_TRUE(matches(fmt::format("mla_cache_write {}x({}+{}) fp8{}", tokens, rank, rope,
                                      ue8m0 ? " ue8m0" : ""),
                          values, expected.value, p.width(), [&](size_t i) {
                            const size_t t = i / p.width(), c = i % p.width();
                            const double value = expected.value[i];
                            if (c >= rank)
                              return stored_bound(value, rope_bound(expected.magnitude[i]), kUBf16);
                            const double largest = amax[t * ceil_div(rank, 128) + c / 128];
                            return fp8_stored_bound(value, rms_norm_bound(rank, value),
                                                    largest + rms_norm_bound(rank, largest), ue8m0);
                          }));
    }
  }
}

TEST_F(MlaCacheWriteGpu, SkipsTokensWithoutASlotAndSlotsPastTheCache) {
  Problem p(9, 40, 8, 21);
  p.slots[0] = layout::kKvNoSlot, p.slots[4] = p.shape.cache_rows, p.slots[8] = 191;
  expect_matches_reference(p);
}

TEST_F(MlaCacheWriteGpu, HostileRowsStayAlone) {
  Problem p(5, 33, 4, 22);
  const auto row = [&](uint32_t t) { return p.y.begin() + long(t) * p.shape.y_stride; };
  std::fill_n(row(1), 33, 0.0f);   // eps alone: zeros, not NaN
  std::fill_n(row(2), 33, 1e15f);  // the largest sum of squares that fits
  row(3)[7] = NAN;                 // its latent only
  p.positions[4] = 100;            // past the table: its key only
  const std::vector<float> cache = run(p);
  const auto at = [&](uint32_t t, size_t c) { return cache[p.slots[t] * p.width() + c]; };
  for (size_t c = 0; c < p.width(); ++c) {
    const bool key = c >= 33;
    EXPECT_FALSE(std::isnan(at(0, c)));
    if (!key) {
      EXPECT_EQ(at(1, c), 0.0f);
      EXPECT_NEAR(at(2, c), p.weight[c], 1e-5f);
    }
    EXPECT_EQ(std::isnan(at(3, c)), !key);
    EXPECT_EQ(std::isnan(at(4, c)), key);
  }
}

TEST_F(MlaCacheWriteGpu, ARowHasTheSameBitsInEveryBatch) {
  const Problem all(11, 129, 10, 30);
  const std::vector<float> expected = run(all);
  for (uint32_t t : {0u, 4u, 10u}) {
    Problem one = all;
    one.shape.tokens = 1;
    one.y.assign(all.y.begin() + long(t) * all.shape.y_stride,
                 all.y.begin() + long(t + 1) * all.shape.y_stride);
    one.positions = {all.positions[t]}, one.slots = {all.slots[t]};
    const std::vector<float> cache = run(one);
    for (size_t c = 0; c < all.width(); ++c) {
      const size_t i = all.slots[t] * all.width() + c;
      EXPECT_EQ(cache[i], expected[i]) << t << ' ' << c;
    }
  }
}

TEST_F(MlaCacheWriteGpu, EmptyProblemsAreDefined) {
  for (Problem p : {Problem(0, 16, 4, 1), Problem(3, 0, 0, 1)}) expect_matches_reference(p);
}

TEST_F(MlaCacheWriteGpu, RefusesAMisalignedFp8Cache) {
  const auto s = MlaCacheWriteShape::packed(4, 32, 8, 128, 64, CacheFormat::kFp8);
  const auto kernel = MlaCacheWrite::create(*device(), mla_cache_write_choose(s, device()->caps()));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  MlaCacheWriteArgs args;
  args.cache = 0x1008;
  EXPECT_EQ(kernel->record(*recorder, s, args).message(),
            "mla_cache_write: cache must be 16-byte aligned, got 0x1008");
}

TEST(MlaCacheWriteHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(MlaCacheWriteShape&)>& change) {
    MlaCacheWriteShape shape = MlaCacheWriteShape::packed(4, 32, 8, 128, 64);
    change(shape);
    const Status status = mla_cache_write_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(mla_cache_write_check(MlaCacheWriteShape::packed(4, 32, 8, 128, 64), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.rope = 7; }), "mla_cache_write: rope must be even, got 7");
  EXPECT_EQ(refused([](auto& s) { s.rank = 1u << 24; }),
            "mla_cache_write: rank + rope must be at most 16777216, got 16777224");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 39; }),
            "mla_cache_write: y_stride must be at least rank + rope, got 39 < 40");
  EXPECT_EQ(refused([](auto& s) { s.row_stride = 39; }),
            "mla_cache_write: row_stride must be at least rank + rope, got 39 < 40");
  EXPECT_EQ(refused([](auto& s) { s.cache_format = CacheFormat::kFp8, s.row_stride = 48; }),
            "mla_cache_write: row_stride must be at least the bytes of an fp8 row, got 48 < 64");
  EXPECT_EQ(refused([](auto& s) { s.cache_format = CacheFormat::kFp8, s.row_stride = 72; }),
            "mla_cache_write: row_stride must be a multiple of 16 bytes, got 72");
  EXPECT_EQ(refused([](auto& s) { s.cache_rows = ~0u; }),
            "mla_cache_write: cache_rows must be at most 4294967294");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 65536; }),
            "mla_cache_write: tokens must be at most 65535, got 65536");
}

}  // namespace
}  // namespace hadal::test
