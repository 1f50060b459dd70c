// Drafts by the checkpoint's own MTP layer: from the hidden state of a position and the token
// behind it, the layer guesses the token after that; from its own hidden state and its guess, the
// next one, as deep as asked for (DeepSeek-V3 report 2.2; one layer reused as in its 5.4.3).
//
// The layer's cache rows lie in the pages of the sequence, in a layer of the cache of their own.
// They are packed: row i of a sequence is its i-th pair that was given to the layer, whatever its
// position (attention needs no order: a key carries its position in its rotation). While nobody
// drafts, nothing is computed, and afterwards the layer attends to the pairs that it has seen;
// there is no hole with rows that nobody wrote.
//
// Where rows are written. Prefill writes rows [0, prompt) of a sequence whole. draft() writes
// behind them only: row i >= prompt lies in page i / 64 >= prompt / 64 (rounded down), and
// published pages are those wholly inside the prompt, pages below that. So no guess gets into a
// page that others share. Guesses deeper than the first leave rows of pairs that may not come
// about; the next call begins at those rows and overwrites them before anybody attends to them.
// A sequence that another engine began without the layer begins at row 0 behind its prompt: its
// pages are its alone. Where it came in the middle of its prompt, the rows in front are zeros.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/model/pass.h"
#include "hadal/moe_permute.h"
#include "hadal/recorder.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/page_pool.h"
#include "hadal/runtime/prefill_pipeline.h"
#include "hadal/runtime/recordings.h"
#include "hadal/runtime/sampler.h"
#include "hadal/runtime/submitter.h"
#include "hadal/status.h"

namespace hadal::runtime {

// What a sequence got from a pass of the model: positions [begin, begin + next_ids.size()) have
// their final hidden states in pass.hidden() from row `hidden_row` on.
struct MtpSequence {
  SequencePages* pages = nullptr;
  uint32_t begin = 0, hidden_row = 0;
  std::span<const uint32_t> next_ids;  // the token behind each position
  uint32_t cache_rows = 0;             // pairs of the sequence that the layer has seen before
  uint32_t depth = 0;                  // drafts wanted; 0: only give the layer its pairs
};

class MtpDrafter {
 public:
  // At most `max_rows` positions of all sequences in a call, and drafts up to `max_depth`. The
  // model and the cache must outlive the drafter. Not thread-safe. Errors: kUnsupported without MTP
  // layer.
  [[nodiscard]] static Result<MtpDrafter> create(Device& device, const model::Model& model,
                                                 const model::Pass& decode, const KvCache& cache,
                                                 uint32_t max_rows, uint32_t max_depth,
                                                 const RecorderOptions& options = {});

  // One submission behind a decode step, which must have left pass.hidden() alone; waits. Drafts
  // of sequences[i], as many as wanted or as its pages have rows for, are then drafts(i).
  [[nodiscard]] Status draft(model::Pass& pass, std::span<const MtpSequence> sequences);
  // The same behind a prefill pass, through the prefill form: the sequences are the pass's parts,
  // in its order, and cache_rows their begin. The layer's rows of a prompt are always written, so
  // that its pages can be shared.
  [[nodiscard]] Status prefill(PrefillPipeline& pipeline, model::Pass& decode,
                               std::span<const MtpSequence> sequences);
  // Of the last call's sequence; valid until the next call.
  [[nodiscard]] std::span<const uint32_t> drafts(size_t sequence) const {
    return drafts_[sequence];
  }

  // As DecodePipeline::set_trace, for draft().
  void set_trace(Trace* trace);
  // Host seconds inside the waits of draft() so far.
  [[nodiscard]] double waited_seconds() const { return submitter_.waited_seconds(); }
  // Of draft().
  [[nodiscard]] const RecordingStats& recordings() const { return recordings_.stats(); }
  // Makes the pipeline that brings rows together: what the layer's passes do not need themselves.
  [[nodiscard]] Status warm_up() const;

 private:
  MtpDrafter(Device& device, const model::Model& model, const KvCache& cache, uint32_t max_rows,
             const RecorderOptions& options, Buffer inputs, Buffer gathered,
             std::vector<Sampler> samplers);
  // Sequences with drafts, the deepest first: pass j runs over a beginning of them.
  void order(std::span<const MtpSequence> sequences);
  void upload_row(uint32_t pass, uint32_t row, const SequencePages& pages, uint32_t position,
                  uint32_t cache_row);
  [[nodiscard]] model::DecodeBatch batch(uint32_t pass, uint32_t rows) const;
  // Positions and cache rows of the passes behind the first.
  void upload_chain(std::span<const MtpSequence> sequences);
  // Says which rows of a pass's hidden states record_gather takes. False where they are its first
  // ones, in order: they need not be moved.
  [[nodiscard]] bool upload_gather(std::span<const uint32_t> rows);
  // `rows` of pass.hidden() one behind the other, as the last upload_gather said: the commands are
  // the same whichever they are.
  [[nodiscard]] Result<DeviceAddress> record_gather(Recorder& recorder, model::Pass& pass,
                                                    uint32_t rows);
  [[nodiscard]] Result<MoeCombine> gather_kernel(const MoeCombineShape& shape) const;
  // The rows of the first pass; fills its inputs but the drafted rows' tables.
  [[nodiscard]] std::vector<uint32_t> upload_first(std::span<const MtpSequence> sequences);
  // Head and draw of guess `number` for `rows` of pass.hidden().
  [[nodiscard]] Status record_guess(Recorder& recorder, model::Pass& pass, uint32_t number,
                                    std::span<const uint32_t> rows);
  // The passes behind the first, whose hidden states of order_ are at `previous`.
  [[nodiscard]] Status record_chain(Recorder& recorder, model::Pass& pass, DeviceAddress previous);
  // Rows with a first, second, .. guess.
  [[nodiscard]] std::vector<uint32_t> guesses() const;
  // The commands of draft() over `rows` pairs.
  [[nodiscard]] Status record_draft(Recorder& recorder, model::Pass& pass, uint32_t rows,
                                    bool gather);
  void read_drafts(size_t sequences);

  Device* device_;
  const model::Model* model_;
  const KvCache* cache_;
  uint32_t max_rows_, table_stride_;
  // u32 [passes][positions, slots, kv_lens][max_rows], then [max_rows] each: ids, hidden rows to
  // gather, ones as floats; then block tables.
  Buffer inputs_;
  Buffer gathered_;                // hidden rows in the order of the first pass
  std::vector<Sampler> samplers_;  // of each pass, greedy
  std::vector<uint32_t> order_;    // sequences with drafts
  std::vector<uint32_t> depths_;   // of order_, descending
  std::vector<std::vector<uint32_t>> drafts_;
  uint32_t max_kv_len_ = 0, table_offset_ = 0;
  Recordings recordings_;
  Submitter submitter_;  // last: it waits before what is above goes
};

}  // namespace hadal::runtime
