// Decode: one token of each of many sequences per step. Bandwidth-bound; absorbed attention.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/recorder.h"
#include "hadal/runtime/kv_cache.h"
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
  // At most `max_rows` sequences per step (bounded by the model's max_decode_rows). Not
  // thread-safe.
  [[nodiscard]] static Result<DecodePipeline> create(Device& device, model::Model& model,
                                                     const KvCache& cache, uint32_t max_rows,
                                                     const RecorderOptions& options = {});

  using RecordHook = std::function<Status(Recorder&, const model::DecodeBatch&)>;
  // Runs one step and waits; `record` adds what follows the hidden states (a head, a sampler).
  // Errors: kInvalidArgument for too many rows, an id outside the vocabulary, a position beyond the
  // context; kOutOfDeviceMemory when the cache is full.
  [[nodiscard]] Status step(std::span<const DecodeRow> rows, const RecordHook& record = {});

  // Called with the device time of every dispatch of a step; needs RecorderOptions::timestamps.
  void set_profile(std::function<void(const std::vector<DispatchTiming>&)> profile);
  // What the pipeline does goes there from now on; null: nowhere. The trace must outlive the
  // pipeline, which was created with its recorder_options() if dispatches are to be seen.
  void set_trace(Trace* trace) { trace_ = trace; }

 private:
  DecodePipeline(Device& device, model::Model& model, const KvCache& cache, uint32_t max_rows,
                 Recorder recorder, Buffer inputs);
  [[nodiscard]] Result<model::DecodeBatch> upload(std::span<const DecodeRow> rows);
  [[nodiscard]] Status record_step(std::span<const DecodeRow> rows, const RecordHook& record);
  Device* device_;
  model::Model* model_;
  const KvCache* cache_;
  uint32_t max_rows_;
  uint32_t table_stride_;
  Recorder recorder_;
  Buffer inputs_;  // u32: ids, positions, slots, kv_lens [max_rows each], block tables
  std::function<void(const std::vector<DispatchTiming>&)> profile_;
  Trace* trace_ = nullptr;
};

}  // namespace hadal::runtime
