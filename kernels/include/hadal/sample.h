// sample: draws one token id per row of logits.
//
//   p = softmax(logits / temperature), then cut, each on what the one before left:
//   top_k: the k most probable tokens;  top_p: the fewest most probable tokens whose share of the
//   mass is at least top_p;  min_p: tokens with p at least min_p times the largest id = the lowest
//   id whose running mass (in id order) exceeds u * mass, u in [0, 1) from Philox4x32-10 with key
//   (seed_lo, seed_hi) and counter (position, 0, 0, 0), its first 64 bits
//
//   logits  float [rows, vocab], row stride logits_stride elements
//   params  SampleParams [rows]
//   ids     uint32 [rows]
//
// Greedy (the largest logit) where temperature is 0, negative or NaN, or top_k is 1. Among equal
// logits the lowest id is the more probable, everywhere. NaN logits count as -infinity; a row
// without any logit above -infinity gives id 0. Rules that are off: top_k 0 or at least vocab;
// top_p of 1 or more, negative, NaN; min_p 0, negative or NaN (above 1 counts as 1). The most
// probable token always stays.
//
// Requirements: addresses multiples of 4; the rules of sample_check. Zero rows: nothing is written.
//
// Contract: reads logits and params, writes ids. No scratch. Thread-safe as fp8_gemm. Determinism:
// a row's id depends on its logits and params only, not on the other rows nor on the workgroup: exp
// is the only rounded operation, masses are 40-bit fixed point (a token below 2^-40 of the most
// probable has none) and are added exactly. Error of the running mass: tests/support/tolerance.h,
// sample_weight_error.
//
// Source: transformers' TopK/TopP/MinP logits warpers and vLLM's sampler for the order of the cuts;
// Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC11) for Philox.
#pragma once

#include <cstdint>
#include <string>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

// One row's parameters as they lie in device memory. The default is greedy.
struct SampleParams {
  float temperature = 0.0f;
  uint32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint32_t seed_lo = 0, seed_hi = 0;
  uint32_t position = 0;  // of the token to be drawn: another number for each draw with one seed
  uint32_t reserved = 0;
};

struct SampleShape {
  uint32_t rows = 0, vocab = 0;
  uint32_t logits_stride = 0;  // elements, at least vocab

  [[nodiscard]] static SampleShape packed(uint32_t rows, uint32_t vocab);
};

struct SampleArgs {
  DeviceAddress logits = 0, params = 0, ids = 0;
};

struct SampleConfig {
  uint32_t workgroup_size = 0;  // invocations per row
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status sample_check(const SampleShape& shape, const Caps& caps);
[[nodiscard]] SampleConfig sample_choose(const SampleShape& shape, const Caps& caps);

class Sample {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<Sample> create(Device& device, const SampleConfig& config);
  // Records one dispatch. Errors: those of check; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const SampleShape& shape,
                              const SampleArgs& args) const;

 private:
  Sample(const Device& device, const vk::Pipeline* pipeline);
  const Device* device_;
  const vk::Pipeline* pipeline_;
};

}  // namespace hadal
