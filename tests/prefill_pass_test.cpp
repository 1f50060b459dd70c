// Several prompts in one prefill pass: each row has the bits that its sequence has alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "hadal/runtime/prefill_pipeline.h"
#include "support/golden.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/test_model.h"

namespace hadal::test {
namespace {

constexpr uint32_t kMaxTokens = 128;

TestModelOptions options_of(uint32_t expansion_rows, CacheFormat format) {
  TestModelOptions options = for_context(256, kMaxTokens);
  options.model.expansion_rows = expansion_rows;
  options.cache_format = format, options.pages = 16;
  return options;
}

struct Sequence {
  std::vector<uint32_t> ids;
  uint32_t first_part = 0;  // tokens in the first pass
  std::vector<float> logits, mtp_logits;
};

std::vector<Sequence> make_sequences(TestModel& m) {
  Random random(3);
  std::vector<Sequence> sequences;
  // The first parts and the rests are kMaxTokens each.
  for (const auto& [tokens, first] : std::vector<std::pair<uint32_t, uint32_t>>{
           {1, 1}, {21, 21}, {97, 50}, {62, 20}, {5, 5}, {70, 31}}) {
    Sequence s;
    s.first_part = first;
    for (uint32_t i = 0; i < tokens; ++i) {
      s.ids.push_back(random.below(m.model().config().vocab_size));
    }
    sequences.push_back(std::move(s));
  }
  return sequences;
}

// Logits of every row of a pass. The rows come back to front, so that they have to be gathered.
std::vector<float> reversed_rows(TestModel& m, uint32_t rows) {
  const size_t vocab = m.model().config().vocab_size;
  std::vector<float> read(rows * vocab), result;
  EXPECT_TRUE(
      device()->download(m.model().logits(), 0, std::as_writable_bytes(std::span(read))).ok());
  for (size_t row = rows; row-- > 0;) {
    result.insert(result.end(), read.begin() + long(row * vocab),
                  read.begin() + long((row + 1) * vocab));
  }
  return result;
}

// Appends the parts' rows to what each sequence has.
void hand_out(const std::vector<float>& rows, size_t vocab,
              std::span<const runtime::PrefillPart> parts,
              std::span<std::vector<float>* const> to) {
  size_t at = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const size_t count = parts[i].ids.size() * vocab;
    to[i]->insert(to[i]->end(), rows.begin() + long(at), rows.begin() + long(at + count));
    at += count;
  }
}

void run_together(TestModel& m, std::vector<Sequence>& sequences, bool mtp) {
  RecorderOptions recorder;
  recorder.check_hazards = recorder.reverse_between_barriers = true;
  auto pipeline = runtime::PrefillPipeline::create(*device(), m.model(), m.cache(), recorder,
                                                   uint32_t(sequences.size()));
  ASSERT_TRUE(pipeline.ok()) << pipeline.status().message();
  std::vector<runtime::SequencePages> pages;
  for (size_t i = 0; i < sequences.size(); ++i) pages.emplace_back(m.pages());
  std::vector<uint32_t> back_to_front(kMaxTokens);
  std::iota(back_to_front.rbegin(), back_to_front.rend(), 0);
  for (const bool rest : {false, true}) {
    std::vector<runtime::PrefillPart> parts, next_parts;
    std::vector<std::vector<uint32_t>> successors;
    std::vector<std::vector<float>*> logits, mtp_logits;
    for (size_t i = 0; i < sequences.size(); ++i) {
      Sequence& s = sequences[i];
      const uint32_t begin = rest ? s.first_part : 0;
      const uint32_t end = rest ? uint32_t(s.ids.size()) : s.first_part;
      if (begin == end) continue;
      parts.push_back({&pages[i], begin, std::span(s.ids).subspan(begin, end - begin)});
      successors.emplace_back(s.ids.begin() + begin + 1,
                              s.ids.begin() + std::min<long>(end + 1, long(s.ids.size())));
      successors.back().resize(end - begin, 7);  // behind the last token: any
      logits.push_back(&s.logits), mtp_logits.push_back(&s.mtp_logits);
    }
    const size_t vocab = m.model().config().vocab_size;
    Status status = pipeline->run_pass(
        parts, [&](Recorder& r) { return m.model().record_head(r, back_to_front); });
    ASSERT_TRUE(status.ok()) << status.message();
    hand_out(reversed_rows(m, kMaxTokens), vocab, parts, logits);
    if (!mtp) continue;
    for (size_t i = 0; i < parts.size(); ++i) {
      next_parts.push_back({parts[i].pages, parts[i].begin, successors[i]});
    }
    status = pipeline->run_mtp_pass(0, next_parts, m.model().hidden(), [&](Recorder& r) {
      return m.model().record_mtp_head(r, 0, back_to_front);
    });
    ASSERT_TRUE(status.ok()) << status.message();
    hand_out(reversed_rows(m, kMaxTokens), vocab, parts, mtp_logits);
  }
}

void expect_rows_as_alone(const std::string& golden, uint32_t expansion_rows, CacheFormat format) {
  TestModel m(load_golden(golden).model_dir, options_of(expansion_rows, format));
  ASSERT_TRUE(m.ok());
  const bool mtp = !m.model().weights().mtp.empty();
  std::vector<Sequence> sequences = make_sequences(m);
  run_together(m, sequences, mtp);
  const size_t vocab = m.model().config().vocab_size;
  for (const Sequence& s : sequences) {
    EXPECT_EQ(s.logits, m.logits(s.ids)) << s.ids.size() << " tokens";
    if (!mtp) continue;
    const auto alone = m.evaluator().logits_with_mtp(s.ids);
    ASSERT_TRUE(alone.ok()) << alone.status().message();
    ASSERT_EQ(s.mtp_logits.size(), s.ids.size() * vocab);
    EXPECT_TRUE(
        std::equal(alone->mtp_logits.begin(), alone->mtp_logits.end(), s.mtp_logits.begin()))
        << s.ids.size() << " tokens, MTP";
  }
}

class PrefillPassGpu : public GpuTest {};

TEST_F(PrefillPassGpu, EachRowHasTheBitsThatItHasAlone) {
  expect_rows_as_alone("fables_king", 1024, CacheFormat::kF32);  // all in one window
  expect_rows_as_alone("v3_bf16", 1024, CacheFormat::kBf16);
}

TEST_F(PrefillPassGpu, WindowsChangeNoBit) {
  expect_rows_as_alone("fables_king", 64, CacheFormat::kFp8);
  expect_rows_as_alone("v3_fp8_ragged", 128, CacheFormat::kF32);
}

TEST_F(PrefillPassGpu, RefusesWhatDoesNotFit) {
  TestModel m(load_golden("fables_king").model_dir, options_of(64, CacheFormat::kF32));
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(runtime::PrefillPipeline::create(*device(), m.model(), m.cache(), {}, kMaxTokens + 1)
                .status()
                .message(),
            "prefill: max_sequences must be 1 to the model's max_tokens of 128, got 129");
  auto pipeline = runtime::PrefillPipeline::create(*device(), m.model(), m.cache(), {}, 2);
  ASSERT_TRUE(pipeline.ok());
  runtime::SequencePages pages[] = {runtime::SequencePages(m.pages()),
                                    runtime::SequencePages(m.pages()),
                                    runtime::SequencePages(m.pages())};
  const std::vector<uint32_t> ids(65, 3), wrong = {1, 2, 100000};
  const auto message = [&](const std::vector<runtime::PrefillPart>& parts) {
    return pipeline->run_pass(parts).message();
  };
  const auto part = [&](int i, std::span<const uint32_t> tokens, uint32_t begin = 0) {
    return runtime::PrefillPart{&pages[i], begin, tokens};
  };
  EXPECT_EQ(message({}), "prefill: sequences of a pass must be 1 to 2, got 0");
  EXPECT_EQ(message({part(0, ids), part(1, ids), part(2, ids)}),
            "prefill: sequences of a pass must be 1 to 2, got 3");
  EXPECT_EQ(message({part(0, ids), part(1, {})}),
            "prefill: a sequence must have at least one token, got 0");
  EXPECT_EQ(message({part(0, ids), part(1, ids)}),
            "prefill: tokens of a pass must be at most 128, got 130");
  EXPECT_EQ(message({part(0, ids), part(1, wrong)}),
            "prefill: token ids must be below " + std::to_string(m.model().config().vocab_size) +
                ", got 100000 at index 2");
  EXPECT_EQ(message({part(0, ids, 192)}),
            "prefill: positions must be below the context of 256, got 65 tokens at 192");
  EXPECT_EQ(m.pages().stats().used, 0u);
}

}  // namespace
}  // namespace hadal::test
