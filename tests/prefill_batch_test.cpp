// How a batch's latents go through the expansion buffer.
#include "hadal/model/prefill_batch.h"

#include <gtest/gtest.h>

#include "support/random.h"

namespace hadal::model {
namespace {

bool operator==(const MlaPrefillSequence& a, const MlaPrefillSequence& b) {
  return a.q_row == b.q_row && a.q_len == b.q_len && a.q_begin == b.q_begin &&
         a.kv_row == b.kv_row && a.kv_rows == b.kv_rows && a.kv_begin == b.kv_begin &&
         a.flags == b.flags;
}

// Rows of a single sequence are cut every 128; the next sequence takes the room that is left in
// whole blocks of 64.
TEST(PrefillExpansionHost, WindowsByHand) {
  constexpr uint32_t kFirst = MlaPrefillSequence::kFirst, kLast = MlaPrefillSequence::kLast;
  const PrefillSequence sequences[] = {{100, 40, 0, 3}, {0, 130, 3, 3}, {0, 3, 6, 1}};
  const PrefillExpansion plan = PrefillExpansion::plan(sequences, 128);
  ASSERT_EQ(plan.windows.size(), 3u);
  const std::vector<MlaPrefillSequence> want = {
      {0, 40, 100, 0, 128, 0, kFirst},         // window 0: full
      {0, 40, 100, 0, 12, 128, kLast},         // window 1: 116 rows are left, 64 of them used
      {40, 130, 0, 12, 64, 0, kFirst},         //
      {40, 130, 0, 0, 66, 64, kLast},          // window 2
      {170, 3, 0, 66, 3, 0, kFirst | kLast}};  //
  ASSERT_EQ(plan.pieces.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(plan.pieces[i] == want[i]) << i;
  EXPECT_EQ(plan.sequences, (std::vector<uint32_t>{0, 0, 1, 1, 2}));
  EXPECT_EQ(plan.windows[1].first, 1u);
  EXPECT_EQ(plan.windows[1].pieces, 2u);
  EXPECT_EQ(plan.windows[1].kv_rows, 76u);
  EXPECT_EQ(plan.windows[1].max_q_len, 130u);
  EXPECT_EQ(plan.windows[2].max_q_len, 130u);
}

// What attention needs: every key once and in order, first and last where they are, rows that do
// not meet, chunks of whole blocks.
TEST(PrefillExpansionHost, EveryKeyOnceAndInOrder) {
  test::Random random(11);
  for (int round = 0; round < 500; ++round) {
    const uint32_t rows = 64 * (1 + random.below(6));
    std::vector<PrefillSequence> sequences(1 + random.below(12));
    for (PrefillSequence& s : sequences) {
      s.begin = random.below(3) ? 0 : random.below(700), s.tokens = 1 + random.below(200);
    }
    const PrefillExpansion plan = PrefillExpansion::plan(sequences, rows);
    ASSERT_EQ(plan.pieces.size(), plan.sequences.size());
    std::vector<uint32_t> reached(sequences.size(), 0);
    uint32_t next_piece = 0;
    for (const auto& window : plan.windows) {
      ASSERT_EQ(window.first, next_piece);
      ASSERT_GT(window.pieces, 0u);
      ASSERT_LE(window.kv_rows, rows);
      uint32_t kv_row = 0, longest = 0, last_sequence = UINT32_MAX;
      for (; next_piece < window.first + window.pieces; ++next_piece) {
        const MlaPrefillSequence& piece = plan.pieces[next_piece];
        const uint32_t index = plan.sequences[next_piece];
        const PrefillSequence& s = sequences[index];
        ASSERT_NE(index, last_sequence);
        last_sequence = index;
        ASSERT_EQ(piece.kv_row, kv_row);
        ASSERT_EQ(piece.kv_begin, reached[index]);
        ASSERT_EQ(piece.kv_begin % 64, 0u);
        ASSERT_EQ(piece.q_len, s.tokens);
        ASSERT_EQ(piece.q_begin, s.begin);
        uint32_t q_row = 0;
        for (uint32_t i = 0; i < index; ++i) q_row += sequences[i].tokens;
        ASSERT_EQ(piece.q_row, q_row);
        reached[index] += piece.kv_rows, kv_row += piece.kv_rows;
        const bool is_last = reached[index] == s.begin + s.tokens;
        ASSERT_TRUE(is_last || piece.kv_rows % 64 == 0);
        ASSERT_EQ(piece.flags, (piece.kv_begin == 0 ? MlaPrefillSequence::kFirst : 0u) |
                                   (is_last ? MlaPrefillSequence::kLast : 0u));
        longest = std::max(longest, s.tokens);
      }
      ASSERT_EQ(window.kv_rows, kv_row);
      ASSERT_EQ(window.max_q_len, longest);
    }
    ASSERT_EQ(next_piece, plan.pieces.size());
    for (size_t i = 0; i < sequences.size(); ++i) {
      ASSERT_EQ(reached[i], sequences[i].begin + sequences[i].tokens);
    }
  }
}

}  // namespace
}  // namespace hadal::model
