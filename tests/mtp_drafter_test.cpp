// Guesses of the MTP layer: commands that were recorded for other requests and lengths give what
// fresh ones give, guesses and rows of the cache to the bit.
#include "hadal/runtime/mtp_drafter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "hadal/runtime/decode_pipeline.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/served_model.h"

namespace hadal::test {
namespace {

using runtime::MtpDrafter;
using runtime::MtpSequence;

constexpr uint32_t kSequences = 3, kDepth = 3;
constexpr uint32_t kRows = 9;  // three of each sequence
constexpr uint32_t kChunk = 64;

class MtpDrafterGpu : public GpuTest {};

// A text whose first `rows` tokens are computed, by the model and by the layer.
struct Sequence {
  runtime::SequencePages pages;
  std::vector<uint32_t> ids;
  uint32_t rows = 0;
};

MtpDrafter drafter_of(TestModel& m, const model::Pass& pass, const RecorderOptions& options = {}) {
  auto drafter = MtpDrafter::create(*device(), m.model(), pass, m.cache(), kRows, kDepth, options);
  EXPECT_TRUE(drafter.ok()) << drafter.status().message();
  return std::move(drafter).value();
}

// The layer's rows of the pages of all sequences.
std::vector<std::byte> mtp_rows(const runtime::KvCache& cache, std::span<Sequence> sequences) {
  const uint64_t page_bytes = runtime::kPageTokens * cache.row_bytes();
  std::vector<std::byte> all;
  for (const Sequence& s : sequences) {
    for (const uint32_t page : s.pages.block_table()) {
      all.resize(all.size() + page_bytes);
      EXPECT_TRUE(
          device()
              ->download(cache.buffer(),
                         cache.main_layers() * cache.view().layer_stride_bytes + page * page_bytes,
                         std::span(all).last(page_bytes))
              .ok());
    }
  }
  return all;
}

// Prompts of up to `longest` tokens, prefilled by both.
std::vector<Sequence> begin(TestModel& m, runtime::PagePool& pool, runtime::DecodePipeline& decode,
                            uint32_t longest) {
  auto prefill = runtime::PrefillPipeline::create(*device(), m.model(), m.cache());
  EXPECT_TRUE(prefill.ok()) << prefill.status().message();
  MtpDrafter drafter = drafter_of(m, decode.pass());
  Random random(7);
  std::vector<Sequence> sequences;
  for (const uint32_t length : {longest, 5u, 70u}) {
    Sequence s{runtime::SequencePages(pool), {}, 0};
    for (uint32_t i = 0; i < length + 200; ++i) s.ids.push_back(random.below(500));
    const std::span ids = s.ids;
    for (; s.rows < length; s.rows += std::min(kChunk, length - s.rows)) {
      const uint32_t count = std::min(kChunk, length - s.rows);
      const runtime::PrefillPart part{&s.pages, s.rows, ids.subspan(s.rows, count)};
      const MtpSequence pairs{&s.pages, s.rows, 0, ids.subspan(s.rows + 1, count), s.rows, 0};
      EXPECT_TRUE(prefill->run_pass({&part, 1}).ok());
      EXPECT_TRUE(drafter.prefill(*prefill, decode.pass(), {&pairs, 1}).ok());
    }
    EXPECT_TRUE(s.pages.reserve(s.rows + 200).ok());
    sequences.push_back(std::move(s));
  }
  return sequences;
}

// A decode step of one to three rows of each sequence and drafts behind it. Some sequences go on
// without, and of some the last rows were wrong guesses.
struct Round {
  std::vector<runtime::DecodeRow> rows;
  std::vector<MtpSequence> drafts;
  Round(Random& random, std::vector<Sequence>& sequences) {
    const bool same_depth = random.below(4);
    for (Sequence& s : sequences) {
      const uint32_t count = 1 + random.below(3), right = 1 + random.below(count);
      const MtpSequence draft{&s.pages,
                              s.rows,
                              uint32_t(rows.size()),
                              std::span(s.ids).subspan(s.rows + 1, right),
                              s.rows,
                              same_depth ? 2 : random.below(kDepth + 1)};
      for (uint32_t i = 0; i < count; ++i) {
        rows.push_back({&s.pages, s.ids[s.rows + i], s.rows + i});
      }
      if (random.below(4) == 0) continue;
      drafts.push_back(draft);
      s.rows += right;
    }
  }
  // Derived from what a recording says: rows, whether they lie at the beginning of the pass's, rows
  // of each guess, attention in one piece or in two.
  [[nodiscard]] std::vector<uint32_t> commands() const {
    std::vector<uint32_t> order, drafted, guesses(kDepth);
    uint32_t longest = 0;
    for (const MtpSequence& d : drafts) {
      const auto pairs = uint32_t(d.next_ids.size());
      for (uint32_t i = 0; i < pairs; ++i) {
        (d.depth && i + 1 == pairs ? drafted : order).push_back(d.hidden_row + i);
      }
      for (uint32_t i = 0; i < d.depth; ++i) ++guesses[i];
      longest = std::max(longest, d.cache_rows + pairs + std::max(d.depth, 1u) - 1);
    }
    // Drafted ones go by depth, the deepest first.
    std::vector<std::pair<uint32_t, uint32_t>> by_depth;
    for (const MtpSequence& d : drafts) {
      if (d.depth) by_depth.emplace_back(kDepth - d.depth, by_depth.size());
    }
    std::sort(by_depth.begin(), by_depth.end());
    for (const auto& [depth, index] : by_depth) order.push_back(drafted[index]);
    bool in_place = true;
    for (uint32_t i = 0; i < order.size(); ++i) in_place = in_place && order[i] == i;
    guesses.insert(guesses.end(), {uint32_t(order.size()), in_place, longest > 1024});
    return guesses;
  }
};

void expect_replays_as_fresh(const RecorderOptions& options) {
  Served served(40, kRows, 1400);
  ASSERT_TRUE(served.model.ok());
  TestModel& m = served.model;
  auto decode = runtime::DecodePipeline::create(*device(), m.model(), m.cache(), kRows);
  ASSERT_TRUE(decode.ok()) << decode.status().message();
  std::vector<Sequence> sequences = begin(m, served.pool, *decode, 990);
  MtpDrafter replaying = drafter_of(m, decode->pass(), options);
  std::set<std::vector<uint32_t>> recorded;
  uint64_t rounds = 0, guesses = 0;
  Random random(11);
  for (int i = 0; i < 60; ++i) {
    const Round round(random, sequences);
    if (round.drafts.empty()) continue;
    ++rounds;
    recorded.insert(round.commands());
    const auto guess = [&](MtpDrafter& drafter) {
      EXPECT_TRUE(decode->step(round.rows).ok());  // the layer overwrites its hidden states
      const Status status = drafter.draft(decode->pass(), round.drafts);
      EXPECT_TRUE(status.ok()) << status.message();
      std::vector<std::vector<uint32_t>> all;
      for (size_t s = 0; s < round.drafts.size(); ++s) {
        const auto drafts = drafter.drafts(s);
        EXPECT_EQ(drafts.size(), round.drafts[s].depth);
        guesses += drafts.size();
        all.emplace_back(drafts.begin(), drafts.end());
      }
      return all;
    };
    const auto expected_drafts = guess(replaying);
    const std::vector<std::byte> rows = mtp_rows(m.cache(), sequences);
    MtpDrafter fresh = drafter_of(m, decode->pass(), options);
    ASSERT_EQ(guess(fresh), expected_drafts) << "round " << i;
    ASSERT_TRUE(mtp_rows(m.cache(), sequences) == rows) << "round " << i;
    ASSERT_EQ(fresh.recordings().recorded, 1u);
  }
  EXPECT_GT(sequences[0].rows, 1024u);
  EXPECT_GT(guesses, 2 * rounds);
  EXPECT_LT(recorded.size(), rounds * 3 / 4);
  EXPECT_EQ(replaying.recordings().recorded, recorded.size());
  EXPECT_EQ(replaying.recordings().replayed, rounds - recorded.size());
}

TEST_F(MtpDrafterGpu, ReplayedGuessesHaveTheBitsOfRecordedOnes) {
  expect_replays_as_fresh({});
}

TEST_F(MtpDrafterGpu, SoTheyHaveBetweenReversedDispatches) {
  RecorderOptions options;
  options.check_hazards = options.reverse_between_barriers = true;
  expect_replays_as_fresh(options);
}

}  // namespace
}  // namespace hadal::test
