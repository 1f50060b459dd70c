// mla_decode's forms beyond one token of one sequence: several queries, bfloat16 results, shared
// pages, and the longest contexts, where a needle has to be found.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "hadal/mla_decode.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/mla_decode.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

// Sequences with pages of their own in one float cache; every other row is NaN.
struct Sequences {
  MlaDecodeShape shape;
  std::vector<float> q_latent, q_pe, cache;
  std::vector<uint32_t> tables, kv_lens;

  Sequences(std::vector<uint32_t> lens, uint32_t q_len, uint32_t heads, uint32_t rank,
            uint32_t rope, uint32_t seed)
      : kv_lens(std::move(lens)) {
    Random random(seed);
    uint32_t pages = 1, longest = 0;
    for (uint32_t n : kv_lens) pages += ceil_div(n, 64), longest = std::max(longest, n);
    shape = MlaDecodeShape::packed(uint32_t(kv_lens.size()) * q_len, heads, rank, rope, longest,
                                   pages * 64);
    shape.q_len = q_len, shape.scale = 1.0f / std::sqrt(float(rank));
    q_latent = random.normals(size_t(shape.tokens) * shape.q_latent_row_stride);
    q_pe = random.normals(size_t(shape.tokens) * shape.q_pe_row_stride);
    cache.assign(size_t(shape.cache_rows) * shape.row_stride, NAN);
    tables.assign(kv_lens.size() * shape.table_stride, 0x7fffffffu);
    uint32_t next = pages;  // from the back
    for (size_t i = 0; i < kv_lens.size(); ++i) {
      for (uint32_t j = 0; j < kv_lens[i]; ++j) {
        uint32_t& page = tables[i * shape.table_stride + j / 64];
        if (j % 64 == 0) page = --next;
        float* row = &cache[(size_t(page) * 64 + j % 64) * shape.row_stride];
        std::generate_n(row, rank + rope, [&] { return random.normal(); });
      }
    }
  }
  [[nodiscard]] reference::AttentionResult expected() const {
    return reference::mla_decode(shape, {q_latent.data(), q_pe.data(), cache.data(), tables.data(),
                                         kv_lens.data(), nullptr});
  }
};

struct Outputs {
  std::vector<std::byte> o;
  std::vector<float> lse;
  [[nodiscard]] std::vector<float> floats() const {
    std::vector<float> values(o.size() / 4);
    std::memcpy(values.data(), o.data(), o.size());
    return values;
  }
};

Outputs run(const Sequences& p, bool portable) {
  const MlaDecodeShape& s = p.shape;
  Caps caps = device()->caps();
  if (portable) caps.scalar_uniforms = false;
  GpuCase gpu(*device());
  GuardedBuffer& o = gpu.output(uint64_t{s.tokens} * s.o_row_stride * element_bytes(s.o_type));
  GuardedBuffer& lse = gpu.output(uint64_t{s.tokens} * s.heads * 4);
  MlaDecodeArgs args;
  args.q_latent = gpu.input(p.q_latent).address(), args.q_pe = gpu.input(p.q_pe).address();
  args.cache = gpu.input(p.cache).address();
  args.block_tables = gpu.input(p.tables).address();
  args.kv_lens = gpu.input(p.kv_lens).address();
  args.o = o.address(), args.lse = lse.address();
  args.scratch = gpu.output(mla_decode_scratch_bytes(s)).address();
  Result<MlaDecode> kernel = MlaDecode::create(*device(), mla_decode_choose(s, caps));
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) { return kernel->record(recorder, s, args); });
  return {gpu.values<std::byte>(o), gpu.values<float>(lse)};
}

class MlaDecodeFormsGpu : public GpuTest {};

// Each query is a token of its own with the keys that it sees.
TEST_F(MlaDecodeFormsGpu, QueriesOfASequenceAreTokensWithFewerKeys) {
  for (const uint32_t heads : {3u, 20u}) {
    for (const uint32_t q_len : {2u, 3u, 4u}) {
      const Sequences p({1, 0, 3, 66, 1026}, q_len, heads, 24, 8, heads + q_len);
      Sequences alone = p;
      alone.shape.q_len = 1;
      alone.kv_lens.clear(), alone.tables.clear();
      for (uint32_t t = 0; t < p.shape.tokens; ++t) {
        const uint32_t length = p.kv_lens[t / q_len], behind = q_len - 1 - t % q_len;
        alone.kv_lens.push_back(length > behind ? length - behind : 0);
        const auto table = p.tables.begin() + long(t / q_len * p.shape.table_stride);
        alone.tables.insert(alone.tables.end(), table, table + p.shape.table_stride);
      }
      const auto expected = p.expected();
      EXPECT_EQ(expected.value, alone.expected().value);
      for (const bool portable : {true, false}) {
        const Outputs together = run(p, portable), apart = run(alone, portable);
        EXPECT_TRUE(same_bits(together.floats(), apart.floats(), p.shape.rank));
        EXPECT_TRUE(same_bits(together.lse, apart.lse, heads));
        // A first query before its sequence's first key.
        EXPECT_EQ(together.lse[0], -INFINITY);
        EXPECT_EQ(together.floats()[0], 0.0f);
      }
    }
  }
}

TEST_F(MlaDecodeFormsGpu, Bfloat16ResultsAreTheFloatsRounded) {
  for (const uint32_t heads : {3u, 20u}) {
    for (const uint32_t length : {70u, 1100u}) {  // one split, several
      Sequences p({length, 0, 5}, 1, heads, 24, 8, heads);
      p.shape.o_head_stride += 3, p.shape.o_row_stride = heads * p.shape.o_head_stride + 1;
      for (const bool portable : {true, false}) {
        const std::vector<float> floats = run(p, portable).floats();
        p.shape.o_type = ElementType::kBf16;
        const std::vector<std::byte> bytes = run(p, portable).o;
        p.shape.o_type = ElementType::kF32;
        std::vector<uint16_t> codes(bytes.size() / 2);
        std::memcpy(codes.data(), bytes.data(), bytes.size());
        for (size_t i = 0; i < codes.size(); ++i) {
          const size_t in_row = i % p.shape.o_row_stride;
          const bool result = in_row / p.shape.o_head_stride < heads &&
                              in_row % p.shape.o_head_stride < p.shape.rank;
          EXPECT_EQ(codes[i], result ? reference::bf16_encode(floats[i]) : 0xffff) << i;
        }
      }
    }
  }
}

// A common prefix is pages in two tables; and a sequence twice in a batch is twice its result.
TEST_F(MlaDecodeFormsGpu, SequencesMayShareTheirPages) {
  for (const uint32_t heads : {3u, 20u}) {
    Sequences p({200, 200, 200}, 1, heads, 24, 8, 60);
    const uint32_t stride = p.shape.table_stride;
    std::copy_n(p.tables.begin(), 2, p.tables.begin() + stride);           // 128 tokens
    std::copy_n(p.tables.begin(), stride, p.tables.begin() + 2 * stride);  // all of them
    const size_t q = p.shape.q_latent_row_stride, pe = p.shape.q_pe_row_stride;
    std::copy_n(p.q_latent.begin(), q, p.q_latent.begin() + long(2 * q));
    std::copy_n(p.q_pe.begin(), pe, p.q_pe.begin() + long(2 * pe));
    const auto expected = p.expected();
    const std::vector<float> o = run(p, false).floats();
    EXPECT_TRUE(matches("mla_decode shared pages", o, expected.value, p.shape.rank, [&](size_t i) {
      const size_t row = i / p.shape.rank;
      const double error = attention_weight_error(
          32, 200, 1.0 + 16.0 + 1.0, expected.score_magnitude[row], expected.score_range[row]);
      return attention_bound(error, 200, expected.magnitude[i], expected.value[i]);
    }));
    const size_t row = size_t(heads) * p.shape.rank;
    const std::vector<float> first(o.begin(), o.begin() + long(row));
    EXPECT_TRUE(same_bits(first, {o.begin() + long(2 * row), o.end()}, p.shape.rank));
  }
}

// One key matches its query exactly, 163,839 do not: its latent is the result, wherever it lies.
// The same pages under six queries.
TEST_F(MlaDecodeFormsGpu, FindsANeedleAtEveryDepth) {
  constexpr uint32_t kLength = 163840, kHeads = 9, kRank = 16, kRope = 8;
  const std::vector<uint32_t> depths = {0, 1, 4095, 65536, 131071, 163839};
  Sequences p({kLength}, uint32_t(depths.size()), kHeads, kRank, kRope, 70);
  p.shape.q_len = 1;
  p.kv_lens.assign(depths.size(), kLength);
  const std::vector<uint32_t> table = p.tables;
  for (size_t i = 1; i < depths.size(); ++i) {
    p.tables.insert(p.tables.end(), table.begin(), table.end());
  }
  const auto needle = [&](size_t i) {
    return &p.cache[(size_t(table[depths[i] / 64]) * 64 + depths[i] % 64) * p.shape.row_stride];
  };
  for (size_t i = 0; i < depths.size(); ++i) {
    // Latents of length 8, so that the needle's score is 128 above 0 and the others spread by 16.
    float norm = 0.0f;
    for (uint32_t c = 0; c < kRank; ++c) norm += needle(i)[c] * needle(i)[c];
    for (uint32_t c = 0; c < kRank; ++c) needle(i)[c] *= 8.0f / std::sqrt(norm);
    for (uint32_t h = 0; h < kHeads; ++h) {
      float* q = &p.q_latent[i * p.shape.q_latent_row_stride + h * kRank];
      for (uint32_t c = 0; c < kRank; ++c) q[c] = needle(i)[c] * float(8 + h);
    }
  }
  std::fill(p.q_pe.begin(), p.q_pe.end(), 0.0f);
  for (const bool portable : {true, false}) {
    const Outputs out = run(p, portable);
    const std::vector<float> o = out.floats();
    for (size_t i = 0; i < o.size(); ++i) {
      const size_t token = i / (kHeads * kRank);
      EXPECT_NEAR(o[i], needle(token)[i % kRank], 1e-5) << "depth " << depths[token];
    }
  }
}

}  // namespace
}  // namespace hadal::test
