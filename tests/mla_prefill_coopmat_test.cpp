// The cooperative-matrix path of mla_prefill, forced where a device does not take it by itself:
// against the reference, its promises about bits, and inputs that f16 does not hold.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hadal/mla_prefill.h"
#include "hadal/reference/mla_prefill.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/mla_prefill_cases.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

using Problem = MlaPrefillProblem;

MlaPrefillConfig choose(const MlaPrefillShape& shape) {
  return mla_prefill_choose(shape, device()->caps(), {AttentionPath::kCoopMat});
}

class MlaPrefillCoopMatGpu : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    const MlaPrefillConfig c = choose(MlaPrefillShape::packed(0, 8, 1, 8, 8, 8));
    if (c.path != AttentionPath::kCoopMat) GTEST_SKIP() << c.rejected[0].to_string();
  }
};

std::vector<float> run(const Problem& p, uint32_t chunk = 0) {
  return run_path(p, choose(p.shape), chunk);
}

double largest(const std::vector<float>& values) {
  double top = 0.0;
  for (float v : values) top = std::isnan(v) ? top : std::max(top, std::fabs(double(v)));
  return top;
}

// `exact`: the inputs lose nothing as halves (MlaPrefillProblem::in_halves).
void expect_matches_reference(const Problem& p, bool exact) {
  const MlaPrefillShape& s = p.shape;
  const auto expected = reference::mla_prefill(s, {p.q.data(), p.kv.data(), p.k_pe.data()});
  ASSERT_EQ(choose(s).path, AttentionPath::kCoopMat);
  AttentionCoopMat c;
  c.dims = s.nope + s.rope, c.coop_k = choose(s).gpu_tile.coop_k;
  c.keys = s.kv_rows, c.factors = 1.0 + ceil_div(s.kv_rows, 64);
  c.largest_product = s.scale * largest(p.q) * std::max(largest(p.kv), largest(p.k_pe));
  c.largest_value = largest(p.kv), c.exact = exact;
  EXPECT_TRUE(matches(fmt::format("mla_prefill coopmat {}+{} x{} {}+{} {}", s.q_begin, s.q_len,
                                  s.heads, s.nope, s.rope, s.v),
                      run(p), expected.value, s.v, [&](size_t i) {
                        c.score_magnitude = expected.score_magnitude[i / s.v];
                        c.score_range = expected.score_range[i / s.v];
                        return attention_coopmat_bound(c, expected.magnitude[i], expected.value[i]);
                      }));
}

void expect_matches_reference(const Problem& p) {
  expect_matches_reference(p, false);
  expect_matches_reference(p.in_halves(), true);
}

TEST_F(MlaPrefillCoopMatGpu, MatchesTheReferenceOnRaggedSizes) {
  for (const Problem& p : ragged_mla_prefills()) expect_matches_reference(p);
}

TEST_F(MlaPrefillCoopMatGpu, MatchesTheReferenceAtEveryNumberOfQueries) {
  for (const Problem& p : mla_prefills_of_many_lengths()) expect_matches_reference(p);
}

TEST_F(MlaPrefillCoopMatGpu, SurvivesScoresThatOverflowAnUnshiftedSoftmax) {
  expect_matches_reference(mla_prefill_of_large_scores());
}

TEST_F(MlaPrefillCoopMatGpu, ChunksOfKeysChangeNoBit) {
  expect_chunks_change_no_bit(run);
}

TEST_F(MlaPrefillCoopMatGpu, BatchesOfQueriesChangeNoBit) {
  expect_batches_of_queries_change_no_bit(run);
}

TEST_F(MlaPrefillCoopMatGpu, NoTileChangesABit) {
  const Problem p(70, 9, 2, 24, 8, 24, 16);
  const std::vector<float> expected = run(p);
  for (const auto& [q_len, slice] : {std::array{16u, 32u}, {32u, 64u}, {128u, 16u}}) {
    MlaPrefillShape many = p.shape;
    many.q_len = q_len;
    MlaPrefillConfig other = choose(many);
    if (slice % other.gpu_tile.coop_k) continue;
    other.gpu_tile.slice = slice;
    EXPECT_TRUE(same_bits(run_path(p, other, 0), expected, 24)) << other.to_string();
  }
}

TEST_F(MlaPrefillCoopMatGpu, ABatchIsItsSequences) {
  const auto alone = [](MlaPrefillShape s) {
    s.q_len = 40;  // the batch's longest: a tile fewer to compile, and none changes a bit
    return choose(s);
  };
  expect_a_batch_is_its_sequences(choose, alone);
}

TEST_F(MlaPrefillCoopMatGpu, EqualScoresGiveTheMeanOfTheValues) {
  expect_equal_scores_give_the_mean_of_the_values(run);
}

// What is not finite in a query stays in its row, in a key or value in the rows that see it.
TEST_F(MlaPrefillCoopMatGpu, KeysAfterAQueryAreNoPartOfIt) {
  for (const float bad : {NAN, INFINITY, 1e30f}) {
    for (const uint32_t channel : {3u, 11u}) {  // of the key, of the value
      Problem p(0, 21, 1, 8, 4, 6, 12);
      const std::vector<float> clean = run(p);
      p.kv[13 * p.shape.kv_row_stride + channel] = bad;
      p.q[2 * p.shape.q_row_stride] = NAN;
      const std::vector<float> o = run(p);
      for (uint32_t i = 0; i < o.size(); ++i) {
        const uint32_t row = i / 6;
        if (row == 2 || (row >= 13 && !(bad == 1e30f))) {
          EXPECT_TRUE(std::isnan(o[i])) << row;
        } else if (row < 13) {
          EXPECT_EQ(o[i], clean[i]) << row;
        }
      }
    }
  }
}

// Powers of two far outside of a half's range change exponents only.
TEST_F(MlaPrefillCoopMatGpu, NoMagnitudeOverflowsOrUnderflows) {
  const Problem p(70, 40, 2, 24, 8, 24, 13);
  const std::vector<float> expected = run(p);
  for (const int exponent : {100, 40, -40, -90}) {
    Problem scaled = p;
    const uint32_t width = p.shape.nope + p.shape.v;
    for (size_t i = 0; i < scaled.kv.size(); ++i) {  // values the other way
      const bool value = i % p.shape.kv_row_stride % width >= p.shape.nope;
      scaled.kv[i] = std::ldexp(scaled.kv[i], value ? -exponent : exponent);
    }
    for (float& v : scaled.k_pe) v = std::ldexp(v, exponent);
    for (float& v : scaled.q) v = std::ldexp(v, -exponent);
    std::vector<float> out = run(scaled);
    for (float& v : out) v = std::ldexp(v, exponent);
    EXPECT_TRUE(same_bits(out, expected, 24)) << exponent;
  }
}

// A value of 1e30 under no weight leaves no trace, and its own query gets it back.
TEST_F(MlaPrefillCoopMatGpu, AHugeValueIsWeighedRight) {
  Problem p(63, 1, 1, 8, 0, 8, 14);
  std::fill(p.q.begin(), p.q.end(), 0.0f);
  p.q[0] = 1000.0f;
  for (uint32_t j = 0; j < 64; ++j) p.kv[j * p.shape.kv_row_stride] = j == 40 ? -1.0f : 1.0f;
  std::vector<float> outputs[2];
  for (int i : {0, 1}) {
    p.kv[40 * p.shape.kv_row_stride + 8 + 5] = i ? 1e30f : 1.0f;
    outputs[i] = run(p);
  }
  EXPECT_EQ(outputs[1], outputs[0]);
  p.q[0] = -1000.0f;
  EXPECT_NEAR(run(p)[5], 1e30f, 1e30 * kUF16);
}

TEST_F(MlaPrefillCoopMatGpu, EmptyProblemsAreDefined) {
  expect_empty_prefills_are_defined(run);
  expect_matches_reference({0, 3, 1, 0, 0, 6, 1});
}

}  // namespace
}  // namespace hadal::test
