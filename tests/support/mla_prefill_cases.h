// What every path of mla_prefill is held to: shapes, and its promises about bits. `run` gives o by
// the path under test, in calls of `chunk` keys (0: one call).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <vector>

#include "mla_prefill_problem.h"
#include "same_bits.h"

namespace hadal::test {

using MlaPrefillRun = std::function<std::vector<float>(const MlaPrefillProblem&, uint32_t chunk)>;

inline std::vector<MlaPrefillProblem> ragged_mla_prefills() {
  return {{0, 1, 1, 4, 4, 2, 1},         {0, 67, 2, 32, 16, 24, 2},  {61, 9, 3, 20, 12, 10, 3, 2},
          {129, 3, 5, 48, 16, 24, 4, 6}, {63, 130, 1, 12, 4, 22, 5}, {300, 18, 2, 8, 0, 24, 6},
          {190, 17, 2, 128, 64, 128, 7}};  // the last one has V3's heads
}

// One vector of queries, two, several tiles with a short last one, diagonals inside and across
// blocks, runs of blocks, more items than workers.
inline std::vector<MlaPrefillProblem> mla_prefills_of_many_lengths() {
  std::vector<MlaPrefillProblem> problems;
  for (uint32_t q_len : {1u, 15u, 16u, 17u, 33u, 64u, 95u}) {
    problems.emplace_back(q_len % 3 * 50, q_len, 2, 16, 8, 24, 30 + q_len, q_len % 2 * 2);
  }
  problems.emplace_back(500, 70, 1, 24, 0, 8, 40);
  problems.emplace_back(0, 300, 3, 0, 16, 40, 41);
  problems.emplace_back(10, 20, 70, 8, 8, 8, 42);
  return problems;
}

// Scores over +-200: most weights underflow, and only differences are ever exponentiated.
inline MlaPrefillProblem mla_prefill_of_large_scores() {
  return {70, 20, 2, 24, 8, 24, 10, 0, 200.0f};
}

inline void expect_chunks_change_no_bit(const MlaPrefillRun& run) {
  const MlaPrefillProblem p(201, 21, 2, 24, 8, 24, 8, 2);
  const std::vector<float> whole = run(p, 0);
  for (uint32_t chunk : {64u, 128u, 192u}) {
    EXPECT_TRUE(same_bits(run(p, chunk), whole, p.shape.v)) << "chunk " << chunk;
  }
}

inline void expect_batches_of_queries_change_no_bit(const MlaPrefillRun& run) {
  const MlaPrefillProblem p(59, 37, 2, 24, 8, 24, 9);
  const std::vector<float> whole = run(p, 0);
  const size_t row = size_t(p.shape.heads) * p.shape.v;
  for (auto [begin, count] : {std::array{0u, 1u}, {4u, 2u}, {5u, 13u}, {17u, 7u}, {36u, 1u}}) {
    const std::vector<float> expected(whole.begin() + long(begin * row),
                                      whole.begin() + long((begin + count) * row));
    for (uint32_t chunk : {0u, 64u}) {
      EXPECT_TRUE(same_bits(run(p.rows(begin, count), chunk), expected, p.shape.v)) << begin;
    }
  }
}

inline void expect_equal_scores_give_the_mean_of_the_values(const MlaPrefillRun& run) {
  MlaPrefillProblem p(0, 96, 1, 4, 4, 2, 11);
  std::fill(p.q.begin(), p.q.end(), 0.0f);
  for (size_t i = 0; i < p.kv.size(); ++i) p.kv[i] = float(i / p.shape.kv_row_stride);
  const std::vector<float> o = run(p, 0);
  for (uint32_t i = 0; i < 96; ++i) EXPECT_FLOAT_EQ(o[i * 2], float(i) / 2) << i;
}

inline void expect_empty_prefills_are_defined(const MlaPrefillRun& run) {
  EXPECT_TRUE(run({5, 0, 2, 8, 4, 6, 1}, 0).empty());
  EXPECT_TRUE(run({5, 3, 0, 8, 4, 6, 1}, 0).empty());
  MlaPrefillProblem no_keys(0, 3, 1, 8, 4, 6, 1);
  no_keys.shape.kv_rows = 0;
  EXPECT_EQ(run(no_keys, 0), std::vector<float>(18, 0.0f));
}

}  // namespace hadal::test
