// mla_prefill against its reference, and its promise that neither chunks nor batches change a bit.
#include "hadal/mla_prefill.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hadal/reference/mla_prefill.h"
#include "hadal/types.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/mla_prefill_cases.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

using Problem = MlaPrefillProblem;

// A path of the portable path's bits; mla_prefill_coopmat_test.cpp has the other.
MlaPrefillConfig choose_path(const MlaPrefillShape& shape, bool lanes) {
  Caps caps = device()->caps();
  caps.cooperative_matrix = false;
  caps.scalar_uniforms = lanes;
  return mla_prefill_choose(shape, caps);
}

// The same by the path that the device takes; the portable path and tiles in shared memory must
// agree bit for bit.
std::vector<float> run(const Problem& p, uint32_t chunk = 0) {
  const MlaPrefillConfig chosen = choose_path(p.shape, device()->caps().scalar_uniforms);
  const std::vector<float> result = run_path(p, chosen, chunk);
  for (const auto path : {AttentionPath::kPortable, AttentionPath::kShared}) {
    const MlaPrefillConfig other = mla_prefill_choose(p.shape, device()->caps(), {path});
    EXPECT_TRUE(other.path == path || device()->caps().max_shared_memory_bytes < 32768);
    if (other.path == chosen.path || other.path != path) continue;
    EXPECT_TRUE(same_bits(run_path(p, other, chunk), result, p.shape.v)) << other.to_string();
  }
  return result;
}

void expect_matches_reference(const Problem& p) {
  const MlaPrefillShape& s = p.shape;
  const auto expected = reference::mla_prefill(s, {p.q.data(), p.kv.data(), p.k_pe.data()});
  const double factors = 1.0 + ceil_div(s.kv_rows, 64);
  EXPECT_TRUE(matches(fmt::format("mla_prefill {}+{} x{} {}+{} {}", s.q_begin, s.q_len, s.heads,
                                  s.nope, s.rope, s.v),
                      run(p), expected.value, s.v, [&](size_t i) {
                        const size_t row = i / s.v;
                        const double error = attention_weight_error(
                            s.nope + s.rope, s.kv_rows, factors, expected.score_magnitude[row],
                            expected.score_range[row]);
                        return attention_bound(error, s.kv_rows, expected.magnitude[i],
                                               expected.value[i]);
                      }));
}

class MlaPrefillGpu : public GpuTest {};

TEST_F(MlaPrefillGpu, MatchesTheReferenceOnRaggedSizes) {
  for (const Problem& p : ragged_mla_prefills()) expect_matches_reference(p);
}

TEST_F(MlaPrefillGpu, MatchesTheReferenceAtEveryNumberOfQueries) {
  for (const Problem& p : mla_prefills_of_many_lengths()) expect_matches_reference(p);
}

TEST_F(MlaPrefillGpu, ChunksOfKeysChangeNoBit) {
  expect_chunks_change_no_bit(run);
}

// Where the device does not choose them too, if its workgroups can be one subgroup.
TEST_F(MlaPrefillGpu, LanesAgreeOnEveryCpuDriver) {
  const Problem p(70, 27, 2, 8, 8, 8, 13, 2);
  const MlaPrefillConfig lanes = choose_path(p.shape, true), portable = choose_path(p.shape, false);
  if (!device()->caps().is_cpu) GTEST_SKIP() << "not a CPU driver";
  ASSERT_TRUE(lanes.lanes && !portable.lanes);
  EXPECT_TRUE(same_bits(run_path(p, lanes, 64), run_path(p, portable, 0), p.shape.v));
}

TEST_F(MlaPrefillGpu, BatchesOfQueriesChangeNoBit) {
  expect_batches_of_queries_change_no_bit(run);
}

TEST_F(MlaPrefillGpu, ABatchIsItsSequences) {
  for (const bool lanes : {false, true}) {
    if (lanes && !device()->caps().scalar_uniforms) continue;
    const auto choice = [](bool by_query) {
      return [by_query](const MlaPrefillShape& s) { return choose_path(s, by_query); };
    };
    expect_a_batch_is_its_sequences(choice(lanes), choice(false));
  }
  const auto by = [](AttentionPath path) {
    return [path](const MlaPrefillShape& s) {
      return mla_prefill_choose(s, device()->caps(), {path});
    };
  };
  expect_a_batch_is_its_sequences(by(AttentionPath::kShared), by(AttentionPath::kPortable));
}

TEST_F(MlaPrefillGpu, SurvivesScoresThatOverflowAnUnshiftedSoftmax) {
  expect_matches_reference(mla_prefill_of_large_scores());
}

TEST_F(MlaPrefillGpu, EqualScoresGiveTheMeanOfTheValues) {
  expect_equal_scores_give_the_mean_of_the_values(run);
}

TEST_F(MlaPrefillGpu, KeysAfterAQueryAreNoPartOfIt) {
  Problem p(0, 21, 1, 8, 4, 6, 12);
  const std::vector<float> clean = run(p);
  std::fill_n(p.kv.begin() + 13 * p.shape.kv_row_stride, p.shape.kv_row_stride, NAN);
  p.q[2 * p.shape.q_row_stride] = NAN;
  const std::vector<float> o = run(p);
  for (uint32_t i = 0; i < o.size(); ++i) {
    const uint32_t row = i / 6;
    if (row == 2 || row >= 13) {
      EXPECT_TRUE(std::isnan(o[i])) << row;
    } else {
      EXPECT_EQ(o[i], clean[i]) << row;
    }
  }
}

TEST_F(MlaPrefillGpu, EmptyProblemsAreDefined) {
  expect_empty_prefills_are_defined(run);
  expect_matches_reference({0, 3, 1, 0, 0, 6, 1});
}

TEST(MlaPrefillHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const MlaPrefillShape good = MlaPrefillShape::packed(64, 5, 3, 32, 16, 24);
  const auto refused = [&](const std::function<void(MlaPrefillShape&)>& change) {
    MlaPrefillShape shape = good;
    change(shape);
    const Status status = mla_prefill_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(mla_prefill_check(good, caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.nope = 30; }),
            "mla_prefill: nope must be a multiple of 4, got 30");
  EXPECT_EQ(refused([](auto& s) { s.rope = 14; }),
            "mla_prefill: rope must be a multiple of 4, got 14");
  EXPECT_EQ(refused([](auto& s) { s.v = 23; }), "mla_prefill: v must be even, got 23");
  EXPECT_EQ(refused([](auto& s) { s.v = 1026; }), "mla_prefill: v must be at most 1024, got 1026");
  EXPECT_EQ(refused([](auto& s) { s.k_pe_stride = 17; }),
            "mla_prefill: strides of q, kv and k_pe must be even, got 144, 48, 168, 17");
  EXPECT_EQ(refused([](auto& s) { s.q_head_stride = 46; }),
            "mla_prefill: q_head_stride must be at least nope + rope, got 46 < 48");
  EXPECT_EQ(refused([](auto& s) { s.q_row_stride = 142; }),
            "mla_prefill: q_row_stride must hold all heads, got 142 < 144");
  EXPECT_EQ(refused([](auto& s) { s.kv_row_stride = 166; }),
            "mla_prefill: kv_row_stride must be at least heads * (nope + v), got 166 < 168");
  EXPECT_EQ(refused([](auto& s) { s.k_pe_stride = 14; }),
            "mla_prefill: k_pe_stride must be at least rope, got 14 < 16");
  EXPECT_EQ(refused([](auto& s) { s.o_head_stride = 23; }),
            "mla_prefill: o_head_stride must be at least v, got 23 < 24");
  EXPECT_EQ(refused([](auto& s) { s.o_row_stride = 71; }),
            "mla_prefill: o_row_stride must hold all heads, got 71 < 72");
  EXPECT_EQ(refused([](auto& s) { s.o_row_stride = 1u << 25; }),
            "mla_prefill: row strides must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.kv_begin = 32; }),
            "mla_prefill: kv_begin must be a multiple of 64, got 32");
  EXPECT_EQ(refused([](auto& s) { s.last = false; }),
            "mla_prefill: kv_rows must be a multiple of 64 before the last chunk, got 69");
  EXPECT_EQ(refused([](auto& s) {
              s.heads = 65536, s.q_head_stride = 48, s.q_row_stride = 48 * 65536;
              s.kv_row_stride = 56 * 65536, s.o_row_stride = 24 * 65536;
            }),
            "mla_prefill: heads must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.q_len = 65536; }),
            "mla_prefill: q_len must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 2, s.max_q_len = 6; }),
            "mla_prefill: max_q_len must be at most q_len, got 6 > 5");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 2, s.max_q_len = s.q_len = 65536; }),
            "mla_prefill: max_q_len must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 65536, s.max_q_len = 5; }),
            "mla_prefill: sequences must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 65535, s.q_len = s.max_q_len = 65535; }),
            "mla_prefill: heads * sequences * queries of the longest must be less than 2^31, got "
            "12884508675");
}

TEST(MlaPrefillHost, ChoiceFitsEverySubgroupSize) {
  for (uint32_t subgroup : {4u, 8u, 16u, 32u, 64u}) {
    for (uint32_t v : {2u, 24u, 128u, 512u, 1024u}) {
      const MlaPrefillConfig config = mla_prefill_choose(
          MlaPrefillShape::packed(0, 100, 1, 128, 64, v), minimum_caps(subgroup));
      EXPECT_GE(config.pairs * config.workgroup_size * 2, v);
      EXPECT_EQ(64 % config.workgroup_size, 0u);
      EXPECT_GE(config.tile, 1u);
      Caps lanes = minimum_caps(subgroup);
      lanes.scalar_uniforms = lanes.is_cpu = true;
      const MlaPrefillConfig by_query =
          mla_prefill_choose(MlaPrefillShape::packed(0, 100, 1, 128, 64, v), lanes);
      EXPECT_EQ(bool(by_query.lanes), subgroup <= 16 && v % 8 == 0);
    }
  }
}

}  // namespace
}  // namespace hadal::test
