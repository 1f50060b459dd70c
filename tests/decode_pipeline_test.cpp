// Recorded decode steps: submitted again they compute what a fresh recording does.
#include "hadal/runtime/decode_pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "hadal/runtime/prefill_pipeline.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/test_model.h"

namespace hadal::test {
namespace {

using runtime::DecodePipeline;
using runtime::DecodeRow;
using runtime::SequencePages;

constexpr const char* kModel = HADAL_SOURCE_DIR "/examples/models/fables";

class DecodePipelineGpu : public GpuTest {};

DecodePipeline pipeline_of(TestModel& m, const RecorderOptions& options = {}) {
  auto pipeline = DecodePipeline::create(*device(), m.model(), m.cache(),
                                         m.model().options().max_decode_rows, options);
  EXPECT_TRUE(pipeline.ok()) << pipeline.status().message();
  return std::move(pipeline).value();
}

std::vector<float> read_logits(TestModel& m, const model::Pass& pass, size_t rows) {
  std::vector<float> logits(rows * m.model().config().vocab_size);
  EXPECT_TRUE(device()->download(pass.logits(), 0, std::as_writable_bytes(std::span(logits))).ok());
  return logits;
}

// A step of `rows` and the logits of each row.
std::vector<float> step(TestModel& m, DecodePipeline& pipeline, std::span<const DecodeRow> rows) {
  const Status status =
      pipeline.step(rows, 0, [&](Recorder& recorder, const model::DecodeBatch& batch) {
        return pipeline.pass().record_head(recorder, 0, batch.tokens);
      });
  EXPECT_TRUE(status.ok()) << status.message();
  return read_logits(m, pipeline.pass(), rows.size());
}

// The same of one row, recorded here with exactly its kv_len.
std::vector<float> step_of_its_own(TestModel& m, const DecodeRow& row) {
  const auto table = row.pages->block_table();
  std::vector<uint32_t> words{row.id, row.position, row.pages->slot(row.position),
                              row.position + 1};
  words.insert(words.end(), table.begin(), table.end());
  auto inputs = device()->allocate(4 * words.size(), MemoryKind::kUpload);
  EXPECT_TRUE(inputs.ok());
  EXPECT_TRUE(device()->upload(*inputs, 0, std::as_bytes(std::span(words))).ok());
  model::DecodeBatch batch;
  batch.tokens = 1, batch.max_kv_len = row.position + 1;
  batch.ids = inputs->address(), batch.positions = batch.ids + 4, batch.slots = batch.ids + 8;
  batch.kv_lens = batch.ids + 12, batch.block_tables = batch.ids + 16;
  batch.table_stride = uint32_t(table.size());
  auto recorder = Recorder::create(*device());
  EXPECT_TRUE(recorder.ok());
  auto pass = model::Pass::create(m.model(), model::decode_pass(1));
  EXPECT_TRUE(pass.ok()) << pass.status().message();
  EXPECT_TRUE(pass->record(*recorder, batch, m.cache().view()).ok());
  EXPECT_TRUE(pass->record_head(*recorder, 0, 1).ok());
  EXPECT_TRUE(recorder->end().ok());
  EXPECT_TRUE(device()->run(*recorder).ok());
  return read_logits(m, *pass, 1);
}

uint32_t id_at(uint32_t position, uint32_t sequence) {
  return 3 + (position * 7 + sequence * 31) % 400;
}

// Rows join and leave: each step of the replaying pipeline has the logits of a pipeline made for
// it.
void expect_replayed_as_recorded(const RecorderOptions& recorder) {
  TestModelOptions options = for_context(128, 64);
  options.model.max_decode_rows = 3;
  TestModel m(kModel, options);
  ASSERT_TRUE(m.ok());
  DecodePipeline replaying = pipeline_of(m, recorder);
  std::vector<SequencePages> pages;
  for (uint32_t s = 0; s < 3; ++s) pages.emplace_back(m.pages());
  std::vector<uint32_t> length(3, 0);
  for (const uint32_t count : {1, 2, 2, 3, 1, 2, 3, 3, 3, 1}) {
    std::vector<DecodeRow> rows;
    for (uint32_t s = 0; s < count; ++s) {
      rows.push_back({&pages[s], id_at(length[s], s), length[s]});
      ++length[s];
    }
    const std::vector<float> again = step(m, replaying, rows);
    DecodePipeline fresh = pipeline_of(m, recorder);
    ASSERT_EQ(again, step(m, fresh, rows));
    EXPECT_EQ(fresh.recordings().recorded, 1u);
  }
  EXPECT_EQ(replaying.recordings().recorded, 3u);
  EXPECT_EQ(replaying.recordings().replayed, 7u);
}

TEST_F(DecodePipelineGpu, AReplayedStepHasTheBitsOfARecordedOne) {
  expect_replayed_as_recorded({});
}

TEST_F(DecodePipelineGpu, SoItHasBetweenReversedDispatches) {
  RecorderOptions options;
  options.check_hazards = options.reverse_between_barriers = true;
  expect_replayed_as_recorded(options);
}

// Up to 1,024 keys one recording, then one for each doubling, the last cut at the context. Each
// step has the bits of one that plans for its keys only. The earlier rows are random.
TEST_F(DecodePipelineGpu, LongerContextsRecordAtDoublings) {
  constexpr uint32_t kContext = 2200;
  TestModel m(kModel, for_context(kContext, 8));
  ASSERT_TRUE(m.ok());
  Random random(11);
  std::vector<float> rows(m.cache().bytes() / 4);
  for (float& value : rows) value = float(random.below(2001)) / 1000.0f - 1.0f;
  ASSERT_TRUE(device()->upload(m.cache().buffer(), 0, std::as_bytes(std::span(rows))).ok());
  SequencePages pages(m.pages());
  DecodePipeline pipeline = pipeline_of(m);
  uint64_t expected = 0, steps = 0;
  for (const uint32_t position : {1022, 1023, 1024, 2047, 2048, 2050, 2099, 1000, 1500}) {
    expected += position == 1022 || position == 1024 || position == 2048;
    const DecodeRow row{&pages, id_at(position, 0), position};
    const std::vector<float> logits = step(m, pipeline, {&row, 1});
    EXPECT_EQ(pipeline.recordings().recorded, expected) << position;
    EXPECT_EQ(pipeline.recordings().replayed, ++steps - expected) << position;
    ASSERT_EQ(logits, step_of_its_own(m, row)) << position;
  }
}

// Two sequences, one of which is prefilled while the other decodes: the logits of both are those of
// one after the other, whichever is waited for first and whichever queues they are on.
TEST_F(DecodePipelineGpu, PrefillBesideADecodeStepChangesNoBit) {
  constexpr uint32_t kChunk = 32, kChunks = 4;
  TestModelOptions options = for_context(kChunk * kChunks, kChunk);
  options.model.max_decode_rows = 2;  // cache for two sequences
  TestModel m(kModel, options);
  ASSERT_TRUE(m.ok());
  std::vector<uint32_t> prompt, text;
  for (uint32_t i = 0; i < kChunk * kChunks; ++i) {
    prompt.push_back(id_at(i, 1));
    if (i < kChunks) text.push_back(id_at(i, 0));
  }
  const std::vector<float> prompt_alone = m.logits(prompt);
  const std::vector<float> text_alone = m.logits(text, runtime::EvaluationForm::kDecode);
  const size_t vocab = m.model().config().vocab_size;
  for (const bool prefill_first : {false, true}) {
    for (uint32_t queue = 0; queue < device()->queue_count(); ++queue) {
      RecorderOptions recorder;
      recorder.queue = queue;
      auto prefill = runtime::PrefillPipeline::create(*device(), m.model(), m.cache(), recorder);
      ASSERT_TRUE(prefill.ok()) << prefill.status().message();
      DecodePipeline decode = pipeline_of(m);
      SequencePages prefilled(m.pages()), decoded(m.pages());
      for (uint32_t i = 0; i < kChunks; ++i) {
        const DecodeRow row{&decoded, text[i], i};
        ASSERT_TRUE(decode
                        .begin({&row, 1}, 0,
                               [&](Recorder& r, const model::DecodeBatch&) {
                                 return decode.pass().record_head(r, 0, 1);
                               })
                        .ok());
        const runtime::PrefillPart part{&prefilled, i * kChunk,
                                        std::span(prompt).subspan(i * kChunk, kChunk)};
        ASSERT_TRUE(
            prefill
                ->begin_pass({&part, 1},
                             [&](Recorder& r) { return prefill->pass().record_head(r, 0, kChunk); })
                .ok());
        if (prefill_first) {
          ASSERT_TRUE(prefill->finish().ok());
        }
        ASSERT_TRUE(decode.finish().ok());
        ASSERT_TRUE(prefill->finish().ok());
        const auto equal_rows = [&](const std::vector<float>& got, const std::vector<float>& all,
                                    size_t first) {
          return std::equal(got.begin(), got.end(), all.begin() + long(first * vocab));
        };
        EXPECT_TRUE(equal_rows(read_logits(m, decode.pass(), 1), text_alone, i)) << i;
        EXPECT_TRUE(equal_rows(read_logits(m, prefill->pass(), kChunk), prompt_alone, i * kChunk))
            << i;
      }
    }
  }
}

TEST_F(DecodePipelineGpu, HooksOfDifferentKeysAreRecordedApart) {
  TestModel m(kModel, for_context(64, 64));
  ASSERT_TRUE(m.ok());
  DecodePipeline pipeline = pipeline_of(m);
  SequencePages pages(m.pages());
  auto words = device()->allocate(4);
  ASSERT_TRUE(words.ok());
  std::vector<uint32_t> calls(3, 0);
  for (uint32_t position = 0; position < 6; ++position) {
    const DecodeRow row{&pages, id_at(position, 0), position};
    const uint32_t key = position % 2;
    ASSERT_TRUE(pipeline
                    .step({&row, 1}, key,
                          [&, key](Recorder& recorder, const model::DecodeBatch&) {
                            ++calls[key];
                            return recorder.fill(*words, 0, 4, 100 + key);
                          })
                    .ok());
    uint32_t got = 0;
    ASSERT_TRUE(device()->download(*words, 0, std::as_writable_bytes(std::span(&got, 1))).ok());
    EXPECT_EQ(got, 100 + key);
    ASSERT_TRUE(pipeline.step({&row, 1}).ok());  // without a hook, and not one with key 0
  }
  EXPECT_EQ(calls, (std::vector<uint32_t>{1, 1, 0}));
  EXPECT_EQ(pipeline.recordings().recorded, 3u);
}

TEST_F(DecodePipelineGpu, AFailedRecordingIsNotKept) {
  TestModel m(kModel, for_context(64, 64));
  ASSERT_TRUE(m.ok());
  DecodePipeline pipeline = pipeline_of(m);
  SequencePages pages(m.pages());
  const DecodeRow row{&pages, 5, 0};
  const Status status = pipeline.step({&row, 1}, 0, [](Recorder&, const model::DecodeBatch&) {
    return Status(Errc::kCancelled, "no");
  });
  EXPECT_EQ(status.code(), Errc::kCancelled);
  EXPECT_EQ(pipeline.recordings().recorded, 0u);
  EXPECT_EQ(step(m, pipeline, {&row, 1}).size(), m.model().config().vocab_size);
  EXPECT_EQ(pipeline.recordings().recorded, 1u);
}

TEST_F(DecodePipelineGpu, EveryReplayIsTimed) {
  TestModel m(kModel, for_context(64, 64));
  ASSERT_TRUE(m.ok());
  RecorderOptions options;
  options.timestamps = true;
  DecodePipeline pipeline = pipeline_of(m, options);
  std::vector<std::vector<DispatchTiming>> steps;
  pipeline.set_profile([&](const std::vector<DispatchTiming>& t) { steps.push_back(t); });
  SequencePages pages(m.pages());
  for (uint32_t position = 0; position < 3; ++position) {
    const DecodeRow row{&pages, id_at(position, 0), position};
    const Status status = pipeline.step({&row, 1});
    if (status.code() == Errc::kUnsupported) GTEST_SKIP() << status.message();
    ASSERT_TRUE(status.ok()) << status.message();
  }
  ASSERT_EQ(steps.size(), 3u);
  for (const auto& timings : steps) {
    ASSERT_EQ(timings.size(), steps[0].size());
    double total = 0;
    for (size_t i = 0; i < timings.size(); ++i) {
      EXPECT_EQ(timings[i].label, steps[0][i].label);
      EXPECT_GE(timings[i].ns, 0.0);
      total += timings[i].ns;
    }
    EXPECT_GT(total, 0.0);
  }
  EXPECT_GT(pipeline.waited_seconds(), 0.0);
}

// The oldest recording makes room, in use order.
TEST_F(DecodePipelineGpu, RecordingsAreBounded) {
  runtime::Recordings recordings(*device(), {}, 2);
  auto word = device()->allocate(4);
  ASSERT_TRUE(word.ok());
  std::vector<uint32_t> recorded;
  for (const uint32_t rows : {1, 2, 1, 3, 1, 2, 3}) {  // 3 drops 2, 2 drops 3, 3 drops 1
    auto recorder = recordings.get({rows, 0, 0, false}, [&](Recorder& fresh) {
      recorded.push_back(rows);
      return fresh.fill(*word, 0, 4, rows);
    });
    ASSERT_TRUE(recorder.ok()) << recorder.status().message();
    ASSERT_TRUE(device()->run(**recorder).ok());
    uint32_t got = 0;
    ASSERT_TRUE(device()->download(*word, 0, std::as_writable_bytes(std::span(&got, 1))).ok());
    EXPECT_EQ(got, rows);
  }
  EXPECT_EQ(recorded, (std::vector<uint32_t>{1, 2, 3, 2, 3}));
  EXPECT_EQ(recordings.stats().recorded, 5u);
  EXPECT_EQ(recordings.stats().replayed, 2u);
}

}  // namespace
}  // namespace hadal::test
