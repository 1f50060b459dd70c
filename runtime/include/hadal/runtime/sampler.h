// Sampling parameters of a request, and the kernel call that turns logits on the device into ids.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/sample.h"
#include "hadal/status.h"

namespace hadal::runtime {

struct SamplingOptions {
  float temperature = 0.0f;  // 0: greedy
  uint32_t top_k = 0;        // 0: off
  float top_p = 1.0f;        // 1: off
  float min_p = 0.0f;        // 0: off
  uint64_t seed = 0;
};

// Ok, or kInvalidArgument naming the option out of range.
[[nodiscard]] Status check_sampling(const SamplingOptions& options);

class Sampler {
 public:
  [[nodiscard]] static Result<Sampler> create(Device& device, uint32_t max_rows, uint32_t vocab);
  // Sets row's parameters; `position` is the absolute position of the token to be drawn, so that a
  // draw depends on seed and position only.
  void set_row(uint32_t row, const SamplingOptions& options, uint32_t position);
  // Records the draw of rows [0, rows) from float logits [rows, vocab].
  [[nodiscard]] Status record(Recorder& recorder, DeviceAddress logits, uint32_t rows);
  // Where the ids lie, u32 [max_rows], for a later dispatch of the same recorder.
  [[nodiscard]] DeviceAddress ids() const { return ids_.address(); }
  // After the recorder ran.
  [[nodiscard]] uint32_t id(uint32_t row) const;

 private:
  Sampler(Device& device, uint32_t vocab, Buffer params, Buffer ids);
  Device* device_;
  uint32_t vocab_;
  Buffer params_;  // SampleParams [max_rows], written by the host
  Buffer ids_;     // u32 [max_rows], read by the host
};

}  // namespace hadal::runtime
