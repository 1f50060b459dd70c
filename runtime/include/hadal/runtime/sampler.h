// The kernel calls that turn logits on the device into ids and log-probabilities: logit_adjust for
// the rows that ask for it, sample, top_logprobs for the rows that ask for it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/logit_adjust.h"
#include "hadal/recorder.h"
#include "hadal/runtime/sampling_options.h"
#include "hadal/sample.h"
#include "hadal/status.h"
#include "hadal/top_logprobs.h"

namespace hadal::runtime {

// Whether the options need logit_adjust.
[[nodiscard]] bool adjusts_logits(const SamplingOptions& options);

class Sampler {
 public:
  [[nodiscard]] static Result<Sampler> create(Device& device, uint32_t max_rows, uint32_t vocab);

  // Makes the pipelines of all that rows may ask for (hadal/runtime/warm_up.h).
  [[nodiscard]] static Status warm_up(Device& device, uint32_t vocab);

  // Sets row's parameters; `position` is the absolute position of the token to be drawn, so that a
  // draw depends on seed and position only. Forgets what the calls below said about the row.
  void set_row(uint32_t row, const SamplingOptions& options, uint32_t position);
  // Penalties of `options` and biases for the tokens of `edits` (different ids below vocab; an id's
  // bias is the edit's). `allowed`: bits of allowed tokens, ceil(vocab / 32) words; empty: all.
  void adjust_row(uint32_t row, const SamplingOptions& options, std::span<const LogitEdit> edits,
                  std::span<const uint32_t> allowed);
  // The log-probabilities of the drawn token and of the `top` most probable ones (at most
  // kMaxTopLogprobs), of the logits as record() gets them.
  void want_logprobs(uint32_t row, uint32_t top);

  // Brings what rows [0, rows) were set to to the device; none of its recordings may be under way.
  // The number tells recordings apart: record() records the same commands after two calls with the
  // same rows and number. Errors: kOutOfDeviceMemory.
  [[nodiscard]] Result<uint64_t> prepare(uint32_t rows);
  // Records the draw of rows [0, rows) from float logits [rows, vocab], which may be adjusted in
  // place. Errors: kInvalidArgument where a row was adjusted or asked for log-probabilities, or is
  // no longer, without prepare(rows).
  [[nodiscard]] Status record(Recorder& recorder, DeviceAddress logits, uint32_t rows);
  // Where the ids lie, u32 [max_rows], for a later dispatch of the same recorder.
  [[nodiscard]] DeviceAddress ids() const { return ids_.address(); }
  // After the recorder ran.
  [[nodiscard]] uint32_t id(uint32_t row) const;
  // Likewise, where asked for; as many as the row with the most asked for.
  [[nodiscard]] TokenLogprobs logprobs(uint32_t row) const;

 private:
  struct Row {
    std::optional<LogitAdjustRow> adjust;
    std::vector<LogitEdit> edits;
    std::vector<uint32_t> allowed;
    std::optional<uint32_t> top;
    uint32_t logprobs_place = 0;  // in the results
  };
  // What the device has been told.
  struct Prepared {
    uint32_t rows = 0;
    uint32_t adjusted = 0, logprobs = 0;  // listed rows
    uint32_t top = 0;
    [[nodiscard]] bool plain() const { return adjusted == 0 && logprobs == 0; }
    // Raw logits are needed behind adjusted ones.
    [[nodiscard]] bool copies() const { return adjusted > 0 && logprobs > 0; }
  };
  Sampler(Device& device, uint32_t max_rows, uint32_t vocab, Buffer params, Buffer ids);
  [[nodiscard]] Status allocate(uint32_t edits, bool masks);
  void upload_adjustments(uint32_t rows);
  [[nodiscard]] Status record_adjust(Recorder& recorder, DeviceAddress x, DeviceAddress y) const;
  [[nodiscard]] Status record_logprobs(Recorder& recorder, DeviceAddress logits) const;

  Device* device_;
  uint32_t max_rows_, vocab_;
  Buffer params_;  // SampleParams [max_rows], written by the host
  Buffer ids_;     // u32 [max_rows], read by the host
  std::vector<Row> rows_;
  Prepared prepared_;
  bool stale_ = false;  // rows were set since that change what is recorded
  // Allocated when first needed. Written by the host:
  Buffer adjust_rows_;  // LogitAdjustRow [max_rows]
  Buffer edits_;        // LogitEdit, grows
  uint32_t edits_capacity_ = 0;
  uint32_t edits_growths_ = 0;  // recordings hold its address
  Buffer masks_;                // u32 [max_rows, words]
  Buffer logprob_rows_;         // u32 [max_rows]
  // Not:
  Buffer adjusted_;  // float [max_rows, vocab]
  Buffer logprobs_;  // float [max_rows], u32 and float [max_rows, kMaxTopLogprobs]
};

}  // namespace hadal::runtime
