// Decode: one token of each of many sequences per step. Bandwidth-bound; absorbed attention. A
// step's commands are recorded once and submitted again: what differs between steps of as many rows
// (ids, positions, slots, lengths, block tables) lies in device memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/model/pass.h"
#include "hadal/recorder.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/recordings.h"
#include "hadal/runtime/submitter.h"
#include "hadal/runtime/trace.h"
#include "hadal/status.h"

namespace hadal::runtime {

// One row of a decode step: token `id` stands at `position` of the sequence.
struct DecodeRow {
  SequencePages* pages = nullptr;
  uint32_t id = 0;
  uint32_t position = 0;
};

class DecodePipeline {
 public:
  // At most `max_rows` sequences per step (bounded by the model's max_decode_rows). Model and cache
  // must outlive the pipeline. Not thread-safe.
  [[nodiscard]] static Result<DecodePipeline> create(Device& device, const model::Model& model,
                                                     const KvCache& cache, uint32_t max_rows,
                                                     const RecorderOptions& options = {});

  using RecordHook = std::function<Status(Recorder&, const model::DecodeBatch&)>;
  // Runs one step and waits; `record` adds what follows the hidden states (a head, a sampler). It
  // is not called again for a step that finds its commands recorded, so what it records may depend
  // on the batch, on `key` and on what outlives the pipeline, on nothing else: hooks that record
  // differently need different keys. Errors: kInvalidArgument for too many rows, an id outside the
  // vocabulary, a position beyond the context; kOutOfDeviceMemory when the cache is full.
  [[nodiscard]] Status step(std::span<const DecodeRow> rows, uint64_t key,
                            const RecordHook& record);
  [[nodiscard]] Status step(std::span<const DecodeRow> rows);  // the hidden states only

  // step() in two halves. Between them the rows' pages may not be changed; results are read behind
  // the second. Without a step under way finish() does nothing.
  [[nodiscard]] Status begin(std::span<const DecodeRow> rows, uint64_t key,
                             const RecordHook& record);
  [[nodiscard]] Status finish() { return submitter_.wait(); }

  // Called with the device time of every dispatch of a step; needs RecorderOptions::timestamps.
  void set_profile(Submitter::Profile profile) { submitter_.set_profile(std::move(profile)); }
  // What the pipeline does goes there from now on; null: nowhere. The trace must outlive the
  // pipeline, which was created with its recorder_options() if dispatches are to be seen.
  void set_trace(Trace* trace);
  // The pipeline's own: what a hook records on, and where its results lie.
  [[nodiscard]] model::Pass& pass() { return pass_; }
  [[nodiscard]] double waited_seconds() const { return submitter_.waited_seconds(); }
  [[nodiscard]] const RecordingStats& recordings() const { return recordings_.stats(); }

 private:
  DecodePipeline(Device& device, const model::Model& model, const KvCache& cache, uint32_t max_rows,
                 const RecorderOptions& options, model::Pass pass, Buffer inputs);
  [[nodiscard]] Result<model::DecodeBatch> upload(std::span<const DecodeRow> rows);
  const model::Model* model_;
  const KvCache* cache_;
  uint32_t max_rows_;
  uint32_t table_stride_;
  model::Pass pass_;
  Buffer inputs_;  // u32: ids, positions, slots, kv_lens [max_rows each], block tables
  Recordings recordings_;
  Submitter submitter_;  // last: it waits before what is above goes
};

}  // namespace hadal::runtime
