// The cooperative-matrix path of mla_decode, forced where a device does not take it by itself:
// against the reference over the shapes of mla_decode_test.cpp, its promises about bits, and inputs
// that f16 does not hold.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "hadal/mla_decode.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/mla_decode_problem.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

using Problem = MlaDecodeProblem;
using Outputs = MlaDecodeOutputs;

class MlaDecodeCoopMatGpu : public GpuTest {
 protected:
  static MlaDecodeConfig config(const MlaDecodeShape& shape) {
    return mla_decode_choose(shape, device()->caps(), {AttentionPath::kCoopMat});
  }
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    const MlaDecodeConfig c = config(MlaDecodeShape::packed(1, 8, 16, 8, 64, 64));
    if (c.path != AttentionPath::kCoopMat) GTEST_SKIP() << c.rejected[0].to_string();
  }
  static Outputs run(const Problem& p, bool want_lse = true) {
    return test::run(p, config(p.shape), want_lse);
  }
};

// `exact`: the inputs lose nothing as halves (MlaDecodeProblem::in_halves).
void expect_matches_reference(const Problem& p, bool exact = false) {
  const MlaDecodeShape& s = p.shape;
  const auto expected = expected_of(p);
  const MlaDecodeConfig config = mla_decode_choose(s, device()->caps(), {AttentionPath::kCoopMat});
  ASSERT_EQ(config.path, AttentionPath::kCoopMat);
  const Outputs out = run(p, config);
  const auto largest = [](const std::vector<float>& values) {
    double top = 0.0;
    for (float v : values) top = std::isnan(v) ? top : std::max(top, std::fabs(double(v)));
    return top;
  };
  // FP8 rows round the cache's values by a sixteenth at most.
  const double largest_key = largest(p.cache) * 1.0625;
  const double largest_query = std::max(largest(p.q_latent), largest(p.q_pe));
  const auto bounds = [&](size_t row) {
    AttentionCoopMat c;
    c.dims = s.rank + s.rope, c.coop_k = config.gpu_tile.coop_k;
    c.keys = double(p.kv_lens[row / s.heads]);
    c.factors = 1.0 + 16.0 + std::ceil(c.keys / 1024.0);
    c.score_magnitude = expected.score_magnitude[row], c.score_range = expected.score_range[row];
    c.largest_product = s.scale * largest_query * largest_key, c.largest_value = largest_key;
    c.exact = exact;
    return c;
  };
  const std::string name =
      fmt::format("mla_decode coopmat {}x{} {}+{} max {} {}", s.tokens, s.heads, s.rank, s.rope,
                  s.max_kv_len, cache_format_name(s.cache_format));
  EXPECT_TRUE(matches(name, out.o, expected.value, s.rank, [&](size_t i) {
    return attention_coopmat_bound(bounds(i / s.rank), expected.magnitude[i], expected.value[i]);
  }));
  EXPECT_TRUE(matches(name + " lse", out.lse, expected.lse, s.heads, [&](size_t row) {
    return attention_coopmat_lse_bound(bounds(row), expected.lse[row]);
  }));
}

TEST_F(MlaDecodeCoopMatGpu, MatchesTheReferenceAtEveryPageEdge) {
  Problem p({0, 1, 63, 64, 65, 130, 0, 200}, 3, 32, 16, 1);
  expect_matches_reference(p);
  expect_matches_reference(p.in_halves(), true);
  expect_matches_reference(p.in_fp8());
  p.shape.cache_format = CacheFormat::kBf16;
  expect_matches_reference(p);
}

TEST_F(MlaDecodeCoopMatGpu, MatchesTheReferenceOnRaggedSizes) {
  for (const Problem& p : {Problem({5}, 1, 4, 4, 2), Problem({71, 3}, 5, 28, 12, 3),
                           Problem({90, 0, 128}, 17, 60, 0, 4), Problem({66}, 9, 260, 8, 5)}) {
    expect_matches_reference(p);
    expect_matches_reference(p.in_halves(), true);
    expect_matches_reference(p.in_fp8());
  }
}

TEST_F(MlaDecodeCoopMatGpu, MatchesTheReferenceAtDeepSeekV3sHeads) {
  const Problem p({97, 150}, 17, 512, 64, 5);
  expect_matches_reference(p);
  expect_matches_reference(p.in_halves(), true);
  expect_matches_reference(p.in_fp8());
  expect_matches_reference(p.in_halves().in_fp8(ScaleFormat::kUe8m0), true);
}

TEST_F(MlaDecodeCoopMatGpu, MatchesTheReferenceAtEveryNumberOfHeads) {
  for (uint32_t heads : {7u, 9u, 16u, 31u, 33u, 64u, 128u}) {
    const Problem p({66, 0, 9}, heads, 40, 8, heads);
    expect_matches_reference(p.in_halves(), true);
    expect_matches_reference(p.in_fp8());
  }
}

TEST_F(MlaDecodeCoopMatGpu, MatchesTheReferenceOverSplits) {
  Problem p({1023, 0, 1024, 1025, 2100, 1, 257, 513}, 3, 16, 8, 6);
  expect_matches_reference(p);
  expect_matches_reference(p.in_halves(), true);
  expect_matches_reference(p.in_fp8());
  p.shape.cache_format = CacheFormat::kBf16;
  expect_matches_reference(p);
}

TEST_F(MlaDecodeCoopMatGpu, SurvivesScoresThatOverflowAnUnshiftedSoftmax) {
  const Problem p({40, 1300}, 2, 16, 8, 7, 200.0f);
  expect_matches_reference(p);
  expect_matches_reference(p.in_halves(), true);
}

// Alone with the shortest max_kv_len (one dispatch up to 1,024 keys), or in a batch (two).
TEST_F(MlaDecodeCoopMatGpu, NeitherTheBatchNorTheSplitsChangeABit) {
  for (const uint32_t heads : {3u, 33u}) {
    const Problem floats({1500, 700, 0, 1024, 64, 1}, heads, 16, 8, 8);
    for (const Problem& batch : {floats, floats.in_fp8()}) {
      const Outputs all = run(batch);
      const size_t row = size_t(heads) * batch.shape.rank;
      for (uint32_t t = 0; t < batch.shape.tokens; ++t) {
        const Outputs one = run(batch.token(t));
        const auto begin = all.o.begin() + long(t * row);
        EXPECT_TRUE(same_bits(one.o, {begin, begin + long(row)}, batch.shape.rank)) << t;
        const auto lse = all.lse.begin() + long(t * heads);
        EXPECT_TRUE(same_bits(one.lse, {lse, lse + long(heads)}, 1)) << t;
      }
    }
  }
}

// Nor do the heads beside one: the tiles of few and of many, and their slices.
TEST_F(MlaDecodeCoopMatGpu, NoTileChangesABit) {
  const Problem p({130, 64, 1}, 5, 40, 8, 9);
  const Outputs expected = run(p);
  for (const auto& [heads, slice] : {std::array{16u, 32u}, {32u, 64u}, {128u, 16u}}) {
    MlaDecodeShape many = p.shape;
    many.heads = heads;
    MlaDecodeConfig other = config(many);
    if (slice % other.gpu_tile.coop_k) continue;
    other.gpu_tile.slice = slice;
    const Outputs out = test::run(p, other);
    EXPECT_TRUE(same_bits(out.o, expected.o, 40)) << other.to_string();
    EXPECT_TRUE(same_bits(out.lse, expected.lse, 5)) << other.to_string();
  }
}

TEST_F(MlaDecodeCoopMatGpu, BrokenInputsStayAlone) {
  for (const uint32_t heads : {2u, 20u}) {
    const Problem floats({70, 70, 70, 70, 70}, heads, 32, 16, 11);
    for (Problem p : {floats, floats.in_fp8()}) {
      const Outputs clean = run(p, false);
      for (float v : clean.lse) EXPECT_TRUE(std::isnan(v));  // not wanted, not written
      p.tables[p.shape.table_stride] = 0x7fffffffu;          // token 1: a page past the cache
      p.kv_lens[2] = 0xffffffffu;                            // token 2: taken as max_kv_len
      p.q_pe[3 * p.shape.q_pe_row_stride] = NAN;             // token 3, head 0
      p.q_latent[4 * p.shape.q_latent_row_stride] = INFINITY;
      const Outputs out = run(p);
      for (size_t i = 0; i < out.o.size(); ++i) {
        const size_t row = i / 32;
        if (row / heads == 1 || row == 3 * heads || row == 4 * heads) {
          EXPECT_TRUE(std::isnan(out.o[i]) && std::isnan(out.lse[row])) << row;
        } else {
          EXPECT_EQ(out.o[i], clean.o[i]) << row;
        }
      }
    }
  }
}

TEST_F(MlaDecodeCoopMatGpu, AKeyThatIsNotFiniteMakesItsTokenNan) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Problem p({70, 70}, 2, 136, 8, 12);
    p.cache[(size_t(p.tables[0]) * 64 + 7) * p.shape.row_stride + 130] = bad;
    for (const Problem& broken : {p, p.in_fp8()}) {
      const Outputs out = run(broken);
      for (size_t i = 0; i < out.o.size(); ++i) EXPECT_EQ(std::isnan(out.o[i]), i < 2 * 136) << i;
    }
  }
}

// Powers of two far outside of a half's range change exponents only: of the queries against the
// cache, and of o.
TEST_F(MlaDecodeCoopMatGpu, NoMagnitudeOverflowsOrUnderflows) {
  const Problem p({70, 1100}, 3, 40, 8, 13);
  const Outputs expected = run(p);
  for (const int exponent : {100, 40, -40, -90}) {
    Problem scaled = p;
    for (float& v : scaled.cache) v = std::ldexp(v, exponent);
    for (std::vector<float>* q : {&scaled.q_latent, &scaled.q_pe}) {
      for (float& v : *q) v = std::ldexp(v, -exponent);
    }
    Outputs out = run(scaled);
    for (float& v : out.o) v = std::ldexp(v, -exponent);
    EXPECT_TRUE(same_bits(out.o, expected.o, 40)) << exponent;
    EXPECT_TRUE(same_bits(out.lse, expected.lse, 3)) << exponent;
  }
}

// Scores of 1e30: the largest takes all the weight, and its value, halves, comes back exactly.
TEST_F(MlaDecodeCoopMatGpu, HugeQueriesFindTheirKey) {
  Problem p = Problem({70, 300}, 3, 40, 8, 14).in_halves();
  for (std::vector<float>* q : {&p.q_latent, &p.q_pe}) {
    for (float& v : *q) v = std::ldexp(v, 100);
  }
  const auto expected = expected_of(p);
  EXPECT_EQ(run(p).o, std::vector<float>(expected.value.begin(), expected.value.end()));
}

// One key of 1e30. Where its score makes its weight 0, it leaves no trace; where it takes all the
// weight, o is that key, its other channels 0 within 2^-28 of the largest.
TEST_F(MlaDecodeCoopMatGpu, AHugeKeyIsWeighedRight) {
  Problem p({70}, 2, 40, 8, 15);
  float* key = &p.cache[(size_t(p.tables[0]) * 64 + 33) * p.shape.row_stride];
  p.q_latent[7] = -1.0f;                                // of head 0
  p.q_latent[p.shape.q_latent_head_stride + 7] = 1.0f;  // of head 1
  key[7] = 1e10f;
  const Outputs large = run(p);
  key[7] = 1e30f;
  const Outputs out = run(p);
  for (uint32_t c = 0; c < 40; ++c) {
    EXPECT_EQ(out.o[c], large.o[c]) << c;
    if (c == 7) {
      EXPECT_NEAR(out.o[40 + c], 1e30f, 1e30 * kUF16);
    } else {
      EXPECT_LE(std::fabs(out.o[40 + c]), 1e30 * 0x1p-28) << c;
    }
  }
}

// Several queries of a sequence: each is a token of its own with the keys that it sees.
TEST_F(MlaDecodeCoopMatGpu, QueriesOfASequenceAreTokensWithFewerKeys) {
  const Problem alone({1, 0, 64, 65, 1025, 1026}, 5, 24, 8, 20);
  Problem together = alone;
  together.shape.q_len = 2;
  together.kv_lens = {0, 65, 1026};
  Problem apart = alone;
  apart.kv_lens = {0, 0, 64, 65, 1025, 1026};
  std::vector<uint32_t> tables;
  const long stride = alone.shape.table_stride;
  for (long t : {1, 3, 5}) {
    const auto table = alone.tables.begin() + t * stride;
    tables.insert(tables.end(), table, table + stride);
    std::copy_n(table, stride, apart.tables.begin() + (t - 1) * stride);
  }
  together.tables = tables;
  const Outputs one = run(together), two = run(apart);
  EXPECT_TRUE(same_bits(one.o, two.o, 24));
  EXPECT_TRUE(same_bits(one.lse, two.lse, 5));
}

TEST_F(MlaDecodeCoopMatGpu, Bfloat16ResultsAreTheFloatsRounded) {
  for (const uint32_t length : {70u, 1100u}) {  // one split, several
    Problem p({length, 0, 5}, 5, 24, 8, 22);
    const std::vector<float> floats = run(p).o;
    p.shape.o_type = ElementType::kBf16;
    const std::vector<float> rounded = run(p).o;
    ASSERT_EQ(rounded.size(), floats.size());
    for (size_t i = 0; i < floats.size(); ++i) {
      EXPECT_EQ(rounded[i], reference::bf16_decode(reference::bf16_encode(floats[i]))) << i;
    }
  }
}

// One key matches its query, 163,839 do not: its latent, halves, is the result, wherever it lies.
TEST_F(MlaDecodeCoopMatGpu, FindsANeedleAtEveryDepth) {
  constexpr uint32_t kLength = 163840, kRank = 16;
  Problem p = Problem({kLength}, 3, kRank, 8, 71).in_halves();
  std::fill(p.q_pe.begin(), p.q_pe.end(), 0.0f);
  for (const uint32_t depth : {0u, 1u, 4095u, 65536u, 131071u, 163839u}) {
    Problem one = p;
    float* needle =
        &one.cache[(size_t(one.tables[depth / 64]) * 64 + depth % 64) * p.shape.row_stride];
    for (uint32_t c = 0; c < kRank; ++c) needle[c] = c % 2 ? -8.0f : 8.0f;
    for (size_t i = 0; i < one.q_latent.size(); ++i) {
      const uint32_t c = uint32_t(i % p.shape.q_latent_row_stride % p.shape.q_latent_head_stride);
      if (c < kRank) one.q_latent[i] = c % 2 ? -16.0f : 16.0f;
    }
    const Outputs out = run(one);
    for (size_t i = 0; i < out.o.size(); ++i) {
      EXPECT_EQ(out.o[i], i % kRank % 2 ? -8.0f : 8.0f) << depth;
    }
  }
}

TEST_F(MlaDecodeCoopMatGpu, EmptyProblemsAreDefined) {
  const Outputs none = run({{0, 0}, 40, 16, 8, 1});
  EXPECT_EQ(none.o, std::vector<float>(2 * 40 * 16, 0.0f));
  EXPECT_EQ(none.lse, std::vector<float>(80, -INFINITY));
}

// An H100 as its driver lists it, so far as choosing asks.
Caps gpu_caps() {
  Caps caps = minimum_caps(32);
  caps.max_workgroup_invocations = 1024, caps.max_workgroup_size = {1024, 1024, 64};
  caps.max_shared_memory_bytes = 49152, caps.max_workgroup_subgroups = 32;
  caps.subgroup_size_control = caps.shader_float16 = caps.cooperative_matrix = true;
  caps.coop_matrix_shapes = {{16, 8, 8, kCoopFloat16, kCoopFloat16, kCoopFloat32, kCoopFloat32},
                             {16, 16, 16, kCoopFloat16, kCoopFloat16, kCoopFloat16, kCoopFloat16},
                             {16, 16, 16, kCoopFloat16, kCoopFloat16, kCoopFloat32, kCoopFloat32}};
  return caps;
}

TEST(MlaDecodeCoopMatHost, GpusWithMatricesTakeThem) {
  const auto choose = [](uint32_t heads, const Caps& caps, const AttentionPolicy& policy = {}) {
    return mla_decode_choose(MlaDecodeShape::packed(1, heads, 512, 64, 4096, 4096), caps, policy);
  };
  Caps caps = gpu_caps();
  const MlaDecodeConfig config = choose(128, caps);
  if (config.path != AttentionPath::kCoopMat) {
    EXPECT_EQ(config.rejected[0].to_string(),
              "coopmat: not in this build, its glslc does not know the extension");
    return;
  }
  EXPECT_EQ(config.to_string(),
            "mla_decode: coopmat, 64 rows x 64 channels, 4 slices of 128 value channels, matrix "
            "16x16x16, subgroup 32, workgroup 256, shared 46848 bytes, cache f32, mul+add");
  EXPECT_EQ(choose(32, caps).gpu_tile.rows, 32u);
  EXPECT_EQ(choose(33, caps).gpu_tile.rows, 64u);
  EXPECT_EQ(choose(1, caps).gpu_tile.rows, 16u);
  caps.max_shared_memory_bytes = 32768;
  EXPECT_EQ(choose(128, caps).gpu_tile.rows, 32u);
  EXPECT_LE(choose(128, caps).gpu_tile.shared_bytes, 32768u);
  caps.max_shared_memory_bytes = 16384;
  EXPECT_EQ(choose(128, caps).rejected[0].to_string(),
            "coopmat: 16 rows need 28736 bytes of shared memory, the device has 16384");
  EXPECT_EQ(choose(128, caps).path, AttentionPath::kPortable);
  caps = gpu_caps();
  caps.is_cpu = true;
  EXPECT_EQ(choose(128, caps).rejected[0].to_string(), "coopmat: slower on a CPU driver");
  EXPECT_EQ(choose(128, caps, {AttentionPath::kCoopMat}).path, AttentionPath::kCoopMat);
  EXPECT_EQ(choose(128, gpu_caps(), {AttentionPath::kPortable}).rejected[0].to_string(),
            "coopmat: the policy demands another path");
  EXPECT_EQ(choose(128, gpu_caps(), {AttentionPath::kPortable}).path, AttentionPath::kPortable);
  caps = gpu_caps();
  caps.coop_matrix_shapes.resize(2);
  EXPECT_EQ(choose(8, caps).gpu_tile.coop_n, 8u);
  caps.coop_matrix_shapes = {caps.coop_matrix_shapes[1]};
  EXPECT_EQ(choose(8, caps).rejected[0].to_string(),
            "coopmat: no f16 x f16 -> f32 shape that divides 64 keys among the 1 listed");
  EXPECT_EQ(choose(8, minimum_caps(32)).rejected[0].to_string(),
            "coopmat: the device has no VK_KHR_cooperative_matrix");
  EXPECT_EQ(choose(8, minimum_caps(32)).rejected[2].to_string(),
            "lanes: no CPU driver with scalar uniforms and 4 to 16 invocations");
}

TEST(MlaDecodeCoopMatHost, GpusWithoutMatricesStageTilesOfFloats) {
  Caps caps = minimum_caps(32);
  caps.max_workgroup_invocations = 1024, caps.max_workgroup_size = {1024, 1024, 64};
  caps.max_shared_memory_bytes = 32768;
  const auto choose = [&](uint32_t heads) {
    return mla_decode_choose(MlaDecodeShape::packed(1, heads, 512, 64, 4096, 4096), caps);
  };
  EXPECT_EQ(
      choose(128).to_string(),
      "mla_decode: shared, 32 rows x 32 channels, 8 slices of 64 value channels, workgroup 256, "
      "shared 24832 bytes, cache f32, mul+add; not coopmat: the device has no "
      "VK_KHR_cooperative_matrix");
  EXPECT_EQ(choose(16).gpu_tile.rows, 16u);
  EXPECT_EQ(choose(1).gpu_tile.rows, 4u);
  EXPECT_EQ(choose(1).gpu_tile.workgroup_size, 64u);
  caps.max_shared_memory_bytes = 16384;
  EXPECT_EQ(choose(128).rejected[1].to_string(),
            "shared: 4 rows need 17664 bytes of shared memory, the device has 16384");
  caps.max_shared_memory_bytes = 32768, caps.is_cpu = true;
  EXPECT_EQ(choose(128).rejected[1].to_string(), "shared: slower on a CPU driver");
}

// Whether a device takes the path, and its matrix, depend on a head's sizes, not on how many there
// are.
TEST(MlaDecodeCoopMatHost, TheNumberOfHeadsChoosesNoPath) {
  for (uint32_t subgroup : {8u, 16u, 32u, 64u}) {
    for (uint32_t shared : {16384u, 32768u, 49152u, 65536u}) {
      for (uint32_t rank : {4u, 64u, 512u, 1024u}) {
        Caps caps = gpu_caps();
        caps.subgroup_size = subgroup, caps.max_shared_memory_bytes = shared;
        const auto of = [&](uint32_t heads) {
          return mla_decode_choose(MlaDecodeShape::packed(1, heads, rank, 64, 100, 128), caps);
        };
        const MlaDecodeConfig one = of(1);
        for (uint32_t heads : {2u, 16u, 17u, 64u, 128u}) {
          const MlaDecodeConfig many = of(heads);
          EXPECT_EQ(many.path, one.path);
          EXPECT_EQ(many.gpu_tile.coop_k, one.gpu_tile.coop_k);
          if (many.path != AttentionPath::kCoopMat) continue;
          EXPECT_GE(many.gpu_tile.value_channels(), rank);
          EXPECT_LE(many.gpu_tile.shared_bytes, shared);
        }
      }
    }
  }
}

}  // namespace
}  // namespace hadal::test
