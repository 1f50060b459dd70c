// The forward pass of a model as recorded kernels, over a workspace of its own: one batch at a
// time. Passes share nothing but the weights and the cache, so two of them may be under way at
// once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/model/model.h"
#include "hadal/model/prefill_batch.h"
#include "hadal/recorder.h"
#include "hadal/status.h"

namespace hadal::model {

// The largest batches of a pass, at most the model's. A form that is not wanted has 0 rows, and its
// memory is not there.
struct PassShape {
  uint32_t prefill_tokens = 0;
  uint32_t decode_rows = 0;
  uint32_t logit_rows = 1;
  [[nodiscard]] uint32_t rows() const { return std::max(prefill_tokens, decode_rows); }
};

// Of a prefill pipeline, with the model's longest chunk, and of a decode pipeline of `rows` rows,
// each of which may have its logits.
[[nodiscard]] inline PassShape prefill_pass(const ModelOptions& options) {
  return {options.max_tokens, 0, options.max_logit_rows};
}
[[nodiscard]] inline PassShape decode_pass(uint32_t rows) {
  return {0, rows, rows};
}

// Bytes of the workspace and of the logits.
[[nodiscard]] uint64_t pass_bytes(const ModelConfig& config, const ModelOptions& options,
                                  const PassShape& shape);

class Pass {
 public:
  // The model must outlive the pass. Errors: kInvalidArgument for a shape beyond the model's
  // options, kOutOfDeviceMemory. Recording changes nothing in a pass: threads may record it into
  // recorders of their own. It has one workspace, though: one recording of it runs at a time.
  [[nodiscard]] static Result<Pass> create(const Model& model, const PassShape& shape);
  Pass(Pass&&) noexcept;
  Pass& operator=(Pass&&) noexcept;
  ~Pass();

  [[nodiscard]] const PassShape& shape() const;
  // Residual stream, float [rows, hidden]: rows of the batch in order.
  [[nodiscard]] DeviceAddress x() const;
  // Final hidden states (after model.norm), float [rows, hidden] with row_stride() between
  // rows, written by record_final_norm and record_mtp; a part of workspace().
  [[nodiscard]] DeviceAddress hidden() const;
  [[nodiscard]] uint32_t row_stride() const;      // elements between rows of x() and hidden()
  [[nodiscard]] const Buffer& workspace() const;  // for copies to and from x() and hidden()
  // Logits, float [logit_rows, vocab], written by record_head and record_mtp_head.
  [[nodiscard]] const Buffer& logits() const;

  // Pieces of a pass. All end with a barrier: what they wrote may be read by the next call.
  [[nodiscard]] Status record_embedding(Recorder& recorder, DeviceAddress ids, uint32_t tokens);
  [[nodiscard]] Status record_layer(Recorder& recorder, const LayerWeights& layer,
                                    uint32_t cache_layer, const PrefillBatch& batch,
                                    const CacheView& cache);
  [[nodiscard]] Status record_layer(Recorder& recorder, const LayerWeights& layer,
                                    uint32_t cache_layer, const DecodeBatch& batch,
                                    const CacheView& cache);
  // The two halves of record_layer, in this order.
  [[nodiscard]] Status record_attention(Recorder& recorder, const LayerWeights& layer,
                                        uint32_t cache_layer, const PrefillBatch& batch,
                                        const CacheView& cache);
  [[nodiscard]] Status record_attention(Recorder& recorder, const LayerWeights& layer,
                                        uint32_t cache_layer, const DecodeBatch& batch,
                                        const CacheView& cache);
  [[nodiscard]] Status record_feed_forward(Recorder& recorder, const LayerWeights& layer,
                                           uint32_t tokens);
  // hidden()[0..tokens) = norm(x)
  [[nodiscard]] Status record_final_norm(Recorder& recorder, uint32_t tokens);
  // logits()[0..rows) = hidden rows [first, first + rows) times the output head.
  [[nodiscard]] Status record_head(Recorder& recorder, uint32_t first, uint32_t rows);
  // logits()[i] from hidden row rows[i]; rows that do not follow one another are gathered first.
  [[nodiscard]] Status record_head(Recorder& recorder, std::span<const uint32_t> rows);

  // Whole passes: embedding, every layer, final norm.
  [[nodiscard]] Status record(Recorder& recorder, const PrefillBatch& batch,
                              const CacheView& cache);
  [[nodiscard]] Status record(Recorder& recorder, const DecodeBatch& batch, const CacheView& cache);

  // The MTP module `index` over rows: x = eh_proj([norm(embedding(ids)); norm(previous hidden)]),
  // its layer, then head norm into hidden(). batch.ids are the tokens one further than
  // batch.positions say; previous_hidden float [tokens, hidden] has row_stride() too and may be
  // hidden() itself, whose rows are then overwritten at the end.
  [[nodiscard]] Status record_mtp(Recorder& recorder, uint32_t index, const PrefillBatch& batch,
                                  const CacheView& cache, DeviceAddress previous_hidden);
  [[nodiscard]] Status record_mtp(Recorder& recorder, uint32_t index, const DecodeBatch& batch,
                                  const CacheView& cache, DeviceAddress previous_hidden);
  [[nodiscard]] Status record_mtp_head(Recorder& recorder, uint32_t index, uint32_t first,
                                       uint32_t rows);
  [[nodiscard]] Status record_mtp_head(Recorder& recorder, uint32_t index,
                                       std::span<const uint32_t> rows);

 private:
  struct Impl;
  explicit Pass(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal::model
