// Prefill: many tokens at once, of one sequence in chunks of at most Model options().max_tokens, or
// of several sequences in one pass: short prompts together fill the rows that make a GEMM
// worthwhile. Compute-bound; unabsorbed attention. It meets decode only in the cache. A row's bits
// depend on its own sequence only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/model/pass.h"
#include "hadal/recorder.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/submitter.h"
#include "hadal/runtime/trace.h"
#include "hadal/status.h"

namespace hadal::runtime {

// Rows [first, first + tokens) of the call that a chunk holds; its hidden states are
// pass().hidden() rows [0, tokens).
struct PrefillChunk {
  uint32_t first = 0;
  uint32_t tokens = 0;
  bool last = false;
};

// `ids` at positions begin.. of a sequence whose earlier positions are in the cache.
struct PrefillPart {
  SequencePages* pages = nullptr;
  uint32_t begin = 0;
  std::span<const uint32_t> ids;  // at least one
};

class PrefillPipeline {
 public:
  // At most `max_sequences` in a pass. The model and the cache must outlive the pipeline. Not
  // thread-safe.
  [[nodiscard]] static Result<PrefillPipeline> create(Device& device, const model::Model& model,
                                                      const KvCache& cache,
                                                      const RecorderOptions& options = {},
                                                      uint32_t max_sequences = 1);

  // What a caller records behind a chunk (a head, a sampler), and what it reads once the chunk ran.
  using RecordHook = std::function<Status(Recorder&, const PrefillChunk&)>;
  using DoneHook = std::function<Status(const PrefillChunk&)>;
  using PassHook = std::function<Status(Recorder&)>;

  // One pass over all parts, different sequences of together at most max_tokens tokens, and waits.
  // Their hidden states are rows of pass().hidden() in the same order. Errors: as run(), and
  // kInvalidArgument for no, too many or empty parts, or too many tokens.
  [[nodiscard]] Status run_pass(std::span<const PrefillPart> parts, const PassHook& record = {});
  // run_pass() through these layers only, in their order: for a warm-up, which needs one of each
  // kind. Rows of the cache in the others stay as they are.
  [[nodiscard]] Status run_layers(std::span<const PrefillPart> parts,
                                  std::span<const uint32_t> layers, const PassHook& record = {});
  // run_pass() in two halves. Between them the parts' pages may not be changed; results are read
  // behind the second. Without a pass under way finish() does nothing.
  [[nodiscard]] Status begin_pass(std::span<const PrefillPart> parts, const PassHook& record = {});
  [[nodiscard]] Status finish() { return submitter_.wait(); }
  // The MTP module `index` over one pass's rows: `ids` of a part are its tokens' successors, row i
  // of `previous_hidden` is the final hidden state of the pass's row i.
  [[nodiscard]] Status run_mtp_pass(uint32_t index, std::span<const PrefillPart> parts,
                                    DeviceAddress previous_hidden, const PassHook& record = {});

  // Runs `ids` at positions begin.. of a sequence whose earlier positions are in the cache, and
  // waits. Errors: kInvalidArgument for an id outside the vocabulary or positions beyond the
  // model's context; kOutOfDeviceMemory when the cache has too few pages; what a hook returns.
  [[nodiscard]] Status run(SequencePages& pages, uint32_t begin, std::span<const uint32_t> ids,
                           const RecordHook& record = {}, const DoneHook& done = {});

  // The MTP module `index` over rows whose tokens' successors are `next_ids`: position begin + i
  // has the final hidden state row i of `previous_hidden` (float, rows pass().row_stride() apart,
  // on the device).
  [[nodiscard]] Status run_mtp(uint32_t index, SequencePages& pages, uint32_t begin,
                               std::span<const uint32_t> next_ids, DeviceAddress previous_hidden,
                               const RecordHook& record = {}, const DoneHook& done = {});

  // Called with the device time of every dispatch of a chunk; needs RecorderOptions::timestamps.
  void set_profile(Submitter::Profile profile) { submitter_.set_profile(std::move(profile)); }
  // What the pipeline does goes there from now on; null: nowhere. The trace must outlive the
  // pipeline, which was created with its recorder_options() if dispatches are to be seen.
  void set_trace(Trace* trace) { submitter_.set_trace(trace, TraceTrack::kPrefill); }
  // The pipeline's own: what a hook records on, and where its results lie.
  [[nodiscard]] model::Pass& pass() { return pass_; }
  [[nodiscard]] double waited_seconds() const { return submitter_.waited_seconds(); }

 private:
  PrefillPipeline(Device& device, const model::Model& model, const KvCache& cache,
                  uint32_t max_sequences, model::Pass pass, Recorder recorder, Buffer inputs);
  [[nodiscard]] Status check(const PrefillPart& part) const;
  [[nodiscard]] Status check(std::span<const PrefillPart> parts) const;
  [[nodiscard]] Result<model::PrefillBatch> upload(std::span<const PrefillPart> parts);
  using Forward = std::function<Status(Recorder&, const model::PrefillBatch&)>;
  [[nodiscard]] Status record_pass(const model::PrefillBatch& batch, const Forward& forward,
                                   const PassHook& record);
  [[nodiscard]] Status begin_forward(std::span<const PrefillPart> parts, const Forward& forward,
                                     const PassHook& record);
  // The chunks of one sequence, one pass each; `forward` gets the chunk's first row, too.
  using ChunkForward = std::function<Status(Recorder&, const model::PrefillBatch&, uint32_t first)>;
  [[nodiscard]] Status run_chunks(const PrefillPart& part, const ChunkForward& forward,
                                  const RecordHook& record, const DoneHook& done);
  const model::Model* model_;
  const KvCache* cache_;
  uint32_t max_sequences_;
  uint32_t max_entries_;  // of the block tables of a pass
  model::Pass pass_;
  Recorder recorder_;
  Buffer inputs_;        // u32: ids, positions, slots [max_tokens each], block tables; then pieces
  Submitter submitter_;  // last: it waits before what is above goes
};

}  // namespace hadal::runtime
