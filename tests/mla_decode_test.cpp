// mla_decode against its reference, and its promise that batches and splits do not change a bit.
#include "hadal/mla_decode.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_cache_row.h"
#include "hadal/reference/mla_decode.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

// Tokens with pages of their own, scattered over the cache. Rows of no token, and table entries
// past a token's end, are poison.
struct Problem {
  MlaDecodeShape shape;
  std::vector<float> q_latent, q_pe, cache;
  std::vector<uint32_t> tables, kv_lens;
  std::vector<uint8_t> fp8_cache;  // instead of cache: in_fp8()
  float largest_scale = 0.0f;

  Problem(std::vector<uint32_t> lens, uint32_t heads, uint32_t rank, uint32_t rope, uint32_t seed,
          float q_scale = 1.0f)
      : kv_lens(std::move(lens)) {
    Random random(seed);
    uint32_t pages = 1, longest = 0;
    for (uint32_t n : kv_lens) pages += ceil_div(n, 64), longest = std::max(longest, n);
    shape =
        MlaDecodeShape::packed(uint32_t(kv_lens.size()), heads, rank, rope, longest, pages * 64);
    shape.scale = 1.0f / std::sqrt(float(rank));
    shape.row_stride += seed % 2 * 4, shape.table_stride += 1;
    shape.q_latent_head_stride += seed % 3, shape.q_pe_head_stride += 3;
    shape.o_head_stride += seed % 4;
    shape.q_latent_row_stride = heads * shape.q_latent_head_stride;
    shape.q_pe_row_stride = heads * shape.q_pe_head_stride;
    shape.o_row_stride = heads * shape.o_head_stride;
    q_latent = random.normals(kv_lens.size() * shape.q_latent_row_stride, q_scale);
    q_pe = random.normals(kv_lens.size() * shape.q_pe_row_stride, q_scale);
    std::vector<uint32_t> order(pages);
    std::iota(order.begin(), order.end(), 0u);
    for (uint32_t i = pages; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    cache.assign(size_t(shape.cache_rows) * shape.row_stride, NAN);
    tables.assign(kv_lens.size() * shape.table_stride, 0x7fffffffu);
    size_t next = 0;
    for (size_t t = 0; t < kv_lens.size(); ++t) {
      for (uint32_t j = 0; j < kv_lens[t]; ++j) {
        uint32_t& page = tables[t * shape.table_stride + j / 64];
        if (j % 64 == 0) page = order[next++];
        float* row = &cache[(size_t(page) * 64 + j % 64) * shape.row_stride];
        for (uint32_t c = 0; c < rank + rope; ++c) {  // values that bfloat16 holds
          row[c] = reference::bf16_decode(reference::bf16_encode(random.normal()));
        }
      }
    }
  }
  // The same with an FP8 cache; rows of no token stay poison (0xff is NaN in every part of a row).
  [[nodiscard]] Problem in_fp8(ScaleFormat format = ScaleFormat::kFp32) const {
    Problem p = *this;
    const size_t stride =
        reference::fp8_cache_row_bytes(shape.rank, shape.rope) + shape.row_stride / 4 % 2 * 16;
    p.fp8_cache.assign(shape.cache_rows * stride, 0xff);
    for (size_t t = 0; t < kv_lens.size(); ++t) {
      for (uint32_t j = 0; j < kv_lens[t]; ++j) {
        const size_t slot = size_t(tables[t * shape.table_stride + j / 64]) * 64 + j % 64;
        const auto row = reference::Fp8CacheRow::quantize(&cache[slot * shape.row_stride],
                                                          shape.rank, shape.rope, format);
        row.write(&p.fp8_cache[slot * stride]);
        for (float scale : row.scales) p.largest_scale = std::max(p.largest_scale, scale);
      }
    }
    p.shape.cache_format = CacheFormat::kFp8, p.shape.row_stride = uint32_t(stride);
    return p;
  }
  // Token t alone, in the same cache.
  [[nodiscard]] Problem token(uint32_t t) const {
    const auto row = [t](const auto& all, uint32_t stride) {
      return std::decay_t<decltype(all)>(all.begin() + long(t) * stride,
                                         all.begin() + long(t + 1) * stride);
    };
    Problem one = *this;
    one.shape.tokens = 1;
    one.q_latent = row(q_latent, shape.q_latent_row_stride);
    one.q_pe = row(q_pe, shape.q_pe_row_stride);
    one.tables = row(tables, shape.table_stride);
    one.kv_lens = {kv_lens[t]};
    one.shape.max_kv_len = kv_lens[t];
    return one;
  }
};

struct Outputs {
  std::vector<float> o, lse;
};

// The device's own choice, or the portable path on any device.
MlaDecodeConfig choose(const MlaDecodeShape& shape, bool portable) {
  Caps caps = device()->caps();
  if (portable) caps.scalar_uniforms = false;
  return mla_decode_choose(shape, caps);
}

Outputs run(const Problem& p, bool want_lse = true, bool portable = false) {
  const MlaDecodeShape& s = p.shape;
  GpuCase gpu(*device());
  std::vector<uint16_t> codes;
  for (float v : p.cache) codes.push_back(reference::bf16_encode(v));
  GuardedBuffer& q_latent = gpu.input(p.q_latent);
  GuardedBuffer& q_pe = gpu.input(p.q_pe);
  GuardedBuffer& cache = s.cache_format == CacheFormat::kF32    ? gpu.input(p.cache)
                         : s.cache_format == CacheFormat::kBf16 ? gpu.input(codes)
                                                                : gpu.input(p.fp8_cache);
  GuardedBuffer& tables = gpu.input(p.tables);
  GuardedBuffer& kv_lens = gpu.input(p.kv_lens);
  GuardedBuffer& o = gpu.output(uint64_t{s.tokens} * s.o_row_stride * 4);
  GuardedBuffer& lse = gpu.output(uint64_t{s.tokens} * s.heads * 4);
  GuardedBuffer& scratch = gpu.output(mla_decode_scratch_bytes(s));
  Result<MlaDecode> kernel = MlaDecode::create(*device(), choose(s, portable));
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, s,
        {q_latent.address(), q_pe.address(), cache.address(), tables.address(), kv_lens.address(),
         o.address(), want_lse ? lse.address() : 0, scratch.address()});
  });
  Outputs result{{}, gpu.values<float>(lse)};
  const std::vector<float> all = gpu.values<float>(o);
  for (size_t i = 0; i < all.size(); ++i) {
    if (i % s.o_row_stride % s.o_head_stride < s.rank) {
      result.o.push_back(all[i]);
    } else {
      EXPECT_TRUE(std::isnan(all[i])) << "padding written: " << i;
    }
  }
  return result;
}

void expect_matches_reference(const Problem& p) {
  const MlaDecodeShape& s = p.shape;
  const auto expected =
      reference::mla_decode(s, {p.q_latent.data(), p.q_pe.data(), p.cache.data(), p.tables.data(),
                                p.kv_lens.data(), p.fp8_cache.data()});
  const Outputs out = run(p);
  const bool fp8 = s.cache_format == CacheFormat::kFp8;
  const auto keys = [&](size_t row) { return double(p.kv_lens[row / s.heads]); };
  const auto weight_error = [&](size_t row) {
    // Its own exponential, one per later page of its split, one per later split.
    const double factors = 1.0 + 16.0 + std::ceil(keys(row) / 1024.0);
    if (fp8) {
      return attention_fp8_weight_error(s.rank, s.rope, keys(row), factors,
                                        expected.score_magnitude[row], expected.score_range[row],
                                        p.largest_scale * s.scale);
    }
    return attention_weight_error(s.rank + s.rope, keys(row), factors,
                                  expected.score_magnitude[row], expected.score_range[row]);
  };
  const std::string name =
      fmt::format("mla_decode {}x{} {}+{} max {} {}", s.tokens, s.heads, s.rank, s.rope,
                  s.max_kv_len, cache_format_name(s.cache_format));
  EXPECT_TRUE(matches(name, out.o, expected.value, s.rank, [&](size_t i) {
    const size_t row = i / s.rank;
    return (fp8 ? attention_fp8_bound : attention_bound)(weight_error(row), keys(row),
                                                         expected.magnitude[i], expected.value[i]);
  }));
  EXPECT_TRUE(matches(name + " lse", out.lse, expected.lse, s.heads, [&](size_t row) {
    return attention_lse_bound(weight_error(row), keys(row), expected.lse[row]);
  }));
  if (choose(s, false).lanes) {
    const Outputs portable = run(p, true, true);
    EXPECT_TRUE(same_bits(out.o, portable.o, s.rank)) << name << ": paths differ";
    EXPECT_TRUE(same_bits(out.lse, portable.lse, s.heads)) << name << ": paths differ";
  }
}

class MlaDecodeGpu : public GpuTest {};

TEST_F(MlaDecodeGpu, MatchesTheReferenceAtEveryPageEdge) {
  Problem p({0, 1, 63, 64, 65, 130, 0, 200}, 3, 32, 16, 1);
  expect_matches_reference(p);
  expect_matches_reference(p.in_fp8());
  p.shape.cache_format = CacheFormat::kBf16;
  expect_matches_reference(p);
}

TEST_F(MlaDecodeGpu, MatchesTheReferenceOnRaggedSizes) {
  for (const Problem& p : {Problem({5}, 1, 4, 4, 2), Problem({71, 3}, 5, 28, 12, 3),
                           Problem({90, 0, 128}, 17, 60, 0, 4)}) {
    expect_matches_reference(p);
    expect_matches_reference(p.in_fp8());
  }
}

TEST_F(MlaDecodeGpu, MatchesTheReferenceAtDeepSeekV3sHeads) {
  Problem p({97, 150}, 17, 512, 64, 5);
  expect_matches_reference(p);
  expect_matches_reference(p.in_fp8());
  expect_matches_reference(p.in_fp8(ScaleFormat::kUe8m0));
}

// Groups of 128 channels that end inside a workgroup's channels, and keys that are not at a
// multiple of 8 bytes.
TEST_F(MlaDecodeGpu, MatchesTheReferenceOnRaggedGroupsOfFp8Rows) {
  for (const auto& [heads, rank, rope] : {std::array{3u, 8u, 0u},
                                          {2u, 72u, 8u},
                                          {5u, 124u, 4u},
                                          {4u, 136u, 64u},
                                          {3u, 260u, 8u},
                                          {2u, 520u, 8u},
                                          {1u, 1024u, 0u}}) {
    const Problem p({66, 0, 5}, heads, rank, rope, 20 + rank);
    expect_matches_reference(p.in_fp8());
  }
}

// One vector of heads, two, a last one with few, and sizes that only the portable path takes.
TEST_F(MlaDecodeGpu, MatchesTheReferenceAtEveryNumberOfHeads) {
  for (uint32_t heads : {7u, 9u, 16u, 31u, 33u, 64u, 128u}) {
    const Problem p({66, 0, 9}, heads, 40, 8, heads);
    expect_matches_reference(p);
    expect_matches_reference(p.in_fp8());
  }
  expect_matches_reference({{130}, 32, 24, 0, 20});
  expect_matches_reference({{70}, 32, 36, 8, 21});
  expect_matches_reference({{70}, 32, 40, 12, 22});
  if (!device()->caps().is_cpu || !device()->caps().scalar_uniforms) return;
  EXPECT_TRUE(choose(MlaDecodeShape::packed(1, 128, 512, 64, 64, 64), false).lanes);
  EXPECT_FALSE(choose(MlaDecodeShape::packed(1, 128, 512, 60, 64, 64), false).lanes);
}

TEST_F(MlaDecodeGpu, MatchesTheReferenceOverSplitsOfManyHeads) {
  Problem p({1023, 0, 1024, 1025, 2100, 1, 257, 513}, 34, 16, 8, 23);
  expect_matches_reference(p);
  expect_matches_reference(p.in_fp8());
  p.shape.cache_format = CacheFormat::kBf16;
  expect_matches_reference(p);
}

// More items than workers: several of a worker, in the memory of one.
TEST_F(MlaDecodeGpu, WorkersTakeManyItems) {
  std::vector<uint32_t> lens;
  for (uint32_t t = 0; t < 150; ++t) lens.push_back(t * 37 % 140);
  expect_matches_reference({lens, 16, 16, 8, 24});
}

TEST_F(MlaDecodeGpu, MatchesTheReferenceOverSplits) {
  Problem p({1023, 0, 1024, 1025, 2100, 1}, 2, 16, 8, 6);
  expect_matches_reference(p);
  expect_matches_reference(p.in_fp8());
}

TEST_F(MlaDecodeGpu, SurvivesScoresThatOverflowAnUnshiftedSoftmax) {
  const Problem p({40, 1300}, 2, 16, 8, 7, 200.0f);
  expect_matches_reference(p);
  expect_matches_reference(p.in_fp8());
}

// Alone with the shortest max_kv_len (one dispatch up to 1,024 keys), or in a batch (two).
void expect_the_same_bits_alone(const Problem& batch) {
  const uint32_t heads = batch.shape.heads;
  const Outputs all = run(batch);
  const size_t row = size_t(heads) * batch.shape.rank;
  for (uint32_t t = 0; t < batch.shape.tokens; ++t) {
    const Outputs one = run(batch.token(t));
    EXPECT_TRUE(same_bits(one.o,
                          {all.o.begin() + long(t * row), all.o.begin() + long((t + 1) * row)},
                          batch.shape.rank))
        << "token " << t;
    EXPECT_TRUE(same_bits(
        one.lse, {all.lse.begin() + long(t * heads), all.lse.begin() + long((t + 1) * heads)}, 1))
        << "token " << t;
  }
}

TEST_F(MlaDecodeGpu, NeitherTheBatchNorTheSplitsChangeABit) {
  for (const uint32_t heads : {3u, 33u}) {
    const Problem batch({1500, 700, 0, 1024, 64, 1}, heads, 16, 8, 8);
    expect_the_same_bits_alone(batch);
    expect_the_same_bits_alone(batch.in_fp8());
  }
}

TEST_F(MlaDecodeGpu, QPeMayLieInsideTheRowsOfQ) {
  Problem p({70, 12}, 3, 32, 16, 9);
  Random random(10);
  p.shape.q_latent_head_stride = p.shape.q_pe_head_stride = 48;
  p.shape.q_latent_row_stride = p.shape.q_pe_row_stride = 144;
  const std::vector<float> q = random.normals(2 * 144);
  p.q_latent = q;
  p.q_pe.assign(q.begin() + 32, q.end());
  p.q_pe.resize(q.size(), NAN);
  expect_matches_reference(p);
}

void expect_broken_inputs_stay_alone(Problem p) {
  const uint32_t heads = p.shape.heads;
  const Outputs clean = run(p, false);
  for (float v : clean.lse) EXPECT_TRUE(std::isnan(v));  // not wanted, not written
  p.tables[p.shape.table_stride] = 0x7fffffffu;          // token 1: a page past the cache
  p.kv_lens[2] = 0xffffffffu;                            // token 2: taken as max_kv_len
  p.q_pe[3 * p.shape.q_pe_row_stride] = NAN;             // token 3, head 0
  const Outputs out = run(p);
  for (size_t i = 0; i < out.o.size(); ++i) {
    const size_t row = i / 32;
    if (row / heads == 1 || row == 3 * heads) {
      EXPECT_TRUE(std::isnan(out.o[i]) && std::isnan(out.lse[row])) << row;
    } else {
      EXPECT_EQ(out.o[i], clean.o[i]) << row;
    }
  }
}

TEST_F(MlaDecodeGpu, BrokenInputsStayAlone) {
  for (const uint32_t heads : {2u, 20u}) {
    const Problem p({70, 70, 70, 70}, heads, 32, 16, 11);
    expect_broken_inputs_stay_alone(p);
    expect_broken_inputs_stay_alone(p.in_fp8());
  }
}

// A group of a latent that was not finite has codes 0 and a NaN scale.
TEST_F(MlaDecodeGpu, ANanScaleOfAnFp8RowMakesItsTokenNan) {
  Problem p({70, 70}, 2, 136, 8, 12);
  p.cache[(size_t(p.tables[0]) * 64 + 7) * p.shape.row_stride + 130] = INFINITY;
  const Outputs out = run(p.in_fp8());
  for (size_t i = 0; i < out.o.size(); ++i) EXPECT_EQ(std::isnan(out.o[i]), i < 2 * 136) << i;
}

TEST_F(MlaDecodeGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run({{}, 2, 16, 8, 1}).o.empty());
  EXPECT_TRUE(run({{4}, 0, 16, 8, 1}).o.empty());
  const Outputs none = run({{0, 0}, 1, 16, 8, 1});
  EXPECT_EQ(none.o, std::vector<float>(32, 0.0f));
  EXPECT_EQ(none.lse, std::vector<float>(2, -INFINITY));
  const Outputs many = run({{0, 0}, 40, 16, 8, 1});
  EXPECT_EQ(many.o, std::vector<float>(2 * 40 * 16, 0.0f));
  EXPECT_EQ(many.lse, std::vector<float>(80, -INFINITY));
}

// Splits' partials, and the areas of at most 64 workers: (2 * rank + rope + 4 blocks of 64 keys and
// a factor) rows of 32 floats, and alignment.
TEST(MlaDecodeHost, ScratchHoldsEverySplit) {
  const uint64_t area = (16 + 8 + 16 + 4 * 65) * 32 * 4;
  EXPECT_EQ(mla_decode_scratch_bytes(MlaDecodeShape::packed(3, 2, 16, 8, 1024, 4096)),
            6 * area + 64);
  EXPECT_EQ(mla_decode_scratch_bytes(MlaDecodeShape::packed(3, 2, 16, 8, 1025, 4096)),
            3u * 2 * 2 * (16 + 2) * 4 + 12 * area + 64);
  EXPECT_EQ(mla_decode_scratch_bytes(MlaDecodeShape::packed(100, 2, 16, 8, 1024, 4096)),
            64 * area + 64);
}

TEST_F(MlaDecodeGpu, RefusesAMisalignedFp8Cache) {
  const auto s = MlaDecodeShape::packed(2, 3, 32, 16, 100, 256, CacheFormat::kFp8);
  const auto kernel = MlaDecode::create(*device(), mla_decode_choose(s, device()->caps()));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  MlaDecodeArgs args;
  args.cache = 0x1008;
  EXPECT_EQ(kernel->record(*recorder, s, args).message(),
            "mla_decode: cache must be 16-byte aligned, got 0x1008");
}

TEST(MlaDecodeHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const MlaDecodeShape good = MlaDecodeShape::packed(2, 3, 32, 16, 100, 256);
  const auto refused = [&](const std::function<void(MlaDecodeShape&)>& change) {
    MlaDecodeShape shape = good;
    change(shape);
    const Status status = mla_decode_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(mla_decode_check(good, caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.rank = 0; }),
            "mla_decode: rank must be a positive multiple of 4, got 0");
  EXPECT_EQ(refused([](auto& s) { s.rank = 1028; }),
            "mla_decode: rank must be at most 1024, got 1028");
  EXPECT_EQ(refused([](auto& s) { s.rope = 14; }),
            "mla_decode: rope must be a multiple of 4, got 14");
  EXPECT_EQ(refused([](auto& s) { s.row_stride = 50; }),
            "mla_decode: row_stride must be a multiple of 4, got 50");
  EXPECT_EQ(refused([](auto& s) { s.row_stride = 44; }),
            "mla_decode: row_stride must be at least rank + rope, got 44 < 48");
  EXPECT_EQ(refused([](auto& s) { s.cache_format = CacheFormat::kFp8, s.row_stride = 64; }),
            "mla_decode: row_stride must be at least the bytes of an fp8 row, got 64 < 80");
  EXPECT_EQ(refused([](auto& s) { s.cache_format = CacheFormat::kFp8, s.row_stride = 88; }),
            "mla_decode: row_stride must be a multiple of 16 bytes, got 88");
  EXPECT_EQ(refused([](auto& s) { s.q_latent_head_stride = 31; }),
            "mla_decode: q_latent_head_stride must be at least rank, got 31 < 32");
  EXPECT_EQ(refused([](auto& s) { s.q_latent_row_stride = 95; }),
            "mla_decode: q_latent_row_stride must hold all heads, got 95 < 96");
  EXPECT_EQ(refused([](auto& s) { s.q_pe_head_stride = 15; }),
            "mla_decode: q_pe_head_stride must be at least rope, got 15 < 16");
  EXPECT_EQ(refused([](auto& s) { s.q_pe_row_stride = 47; }),
            "mla_decode: q_pe_row_stride must hold all heads, got 47 < 48");
  EXPECT_EQ(refused([](auto& s) { s.o_head_stride = 31; }),
            "mla_decode: o_head_stride must be at least rank, got 31 < 32");
  EXPECT_EQ(refused([](auto& s) { s.o_row_stride = 95; }),
            "mla_decode: o_row_stride must hold all heads, got 95 < 96");
  EXPECT_EQ(refused([](auto& s) { s.row_stride = 1u << 25; }),
            "mla_decode: row_stride must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.table_stride = 1; }),
            "mla_decode: table_stride must be at least ceil(max_kv_len / 64), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.max_kv_len = 257, s.table_stride = 5; }),
            "mla_decode: max_kv_len must be at most cache_rows, got 257 > 256");
  EXPECT_EQ(refused([](auto& s) {
              s.max_kv_len = s.cache_rows = 1024 * 65535 + 1, s.table_stride = 1u << 24;
            }),
            "mla_decode: max_kv_len must be at most 67107840, got 67107841");
  EXPECT_EQ(refused([](auto& s) {
              s.heads = 65536;
              s.q_latent_row_stride = s.q_pe_row_stride = s.o_row_stride = 65536 * 32;
            }),
            "mla_decode: heads must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 65536; }),
            "mla_decode: tokens must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.q_len = 0; }),
            "mla_decode: q_len must be 1 to 65535 and divide tokens, got 0 of 2");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 5, s.q_len = 2; }),
            "mla_decode: q_len must be 1 to 65535 and divide tokens, got 2 of 5");
  EXPECT_EQ(refused([](auto& s) {
              s.tokens = 65535, s.max_kv_len = s.cache_rows = 1u << 24, s.table_stride = 1u << 18;
            }),
            "mla_decode: tokens * heads * splits of 1,024 keys must be less than 2^31, got "
            "3221176320");
}

TEST(MlaDecodeHost, ChoiceFitsEverySubgroupSize) {
  for (uint32_t subgroup : {4u, 8u, 16u, 32u, 64u}) {
    for (uint32_t rank : {4u, 64u, 512u, 1024u}) {
      const MlaDecodeConfig config = mla_decode_choose(
          MlaDecodeShape::packed(1, 128, rank, 64, 100, 128), minimum_caps(subgroup));
      EXPECT_GE(config.pairs * config.workgroup_size * 2, rank);
      EXPECT_EQ(64 % config.workgroup_size, 0u);
      EXPECT_GE(config.tile, 1u);
    }
  }
}

}  // namespace
}  // namespace hadal::test
