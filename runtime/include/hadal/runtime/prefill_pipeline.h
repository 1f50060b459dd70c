// Prefill: many tokens of one sequence at once, in chunks of at most Model options().max_tokens.
// Compute-bound; unabsorbed attention. It meets decode only in the cache.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/recorder.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/trace.h"
#include "hadal/status.h"

namespace hadal::runtime {

// Rows [first, first + tokens) of the call that a chunk holds; its hidden states are
// model.hidden() rows [0, tokens).
struct PrefillChunk {
  uint32_t first = 0;
  uint32_t tokens = 0;
  bool last = false;
};

class PrefillPipeline {
 public:
  // The model and the cache must outlive the pipeline. Not thread-safe.
  [[nodiscard]] static Result<PrefillPipeline> create(Device& device, model::Model& model,
                                                      const KvCache& cache,
                                                      const RecorderOptions& options = {});

  // What a caller records behind a chunk (a head, a sampler), and what it reads once the chunk ran.
  using RecordHook = std::function<Status(Recorder&, const PrefillChunk&)>;
  using DoneHook = std::function<Status(const PrefillChunk&)>;

  // Runs `ids` at positions begin.. of a sequence whose earlier positions are in the cache, and
  // waits. Errors: kInvalidArgument for an id outside the vocabulary or positions beyond the
  // model's context; kOutOfDeviceMemory when the cache has too few pages; what a hook returns.
  [[nodiscard]] Status run(SequencePages& pages, uint32_t begin, std::span<const uint32_t> ids,
                           const RecordHook& record = {}, const DoneHook& done = {});

  // The MTP module `index` over rows whose tokens' successors are `next_ids`: position begin + i
  // has the final hidden state row i of `previous_hidden` (float, rows model.row_stride() apart, on
  // the device).
  [[nodiscard]] Status run_mtp(uint32_t index, SequencePages& pages, uint32_t begin,
                               std::span<const uint32_t> next_ids, DeviceAddress previous_hidden,
                               const RecordHook& record = {}, const DoneHook& done = {});

  // Called with the device time of every dispatch of a chunk; needs RecorderOptions::timestamps.
  void set_profile(std::function<void(const std::vector<DispatchTiming>&)> profile);
  // What the pipeline does goes there from now on; null: nowhere. The trace must outlive the
  // pipeline, which was created with its recorder_options() if dispatches are to be seen.
  void set_trace(Trace* trace) { trace_ = trace; }

 private:
  PrefillPipeline(Device& device, model::Model& model, const KvCache& cache, Recorder recorder,
                  Buffer inputs);
  [[nodiscard]] Result<model::PrefillBatch> upload(SequencePages& pages, uint32_t begin,
                                                   std::span<const uint32_t> ids);
  [[nodiscard]] Status check(uint32_t begin, std::span<const uint32_t> ids) const;
  [[nodiscard]] Status run_chunk(const PrefillChunk& chunk,
                                 const std::function<Status(Recorder&)>& forward,
                                 const RecordHook& record, const DoneHook& done);
  Device* device_;
  model::Model* model_;
  const KvCache* cache_;
  Recorder recorder_;
  Buffer inputs_;  // u32: ids, positions, slots [max_tokens each], block table
  std::function<void(const std::vector<DispatchTiming>&)> profile_;
  Trace* trace_ = nullptr;
};

}  // namespace hadal::runtime
