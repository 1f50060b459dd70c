// top_logprobs: log-probabilities of a chosen token and of the most probable ones, row by row.
//
//   logprob(id) = (l[id] - max l) - log(sum_j exp(l[j] - max l)),  l = logits[row]
//   For listed row i: logprobs[i] = logprob(ids[row]); top_ids[i] the ids of the `top` largest
//   logits, largest first, of equal ones the lowest id first; top_logprobs[i] their logprobs.
//
//   logits        float [rows, vocab], row stride logits_stride elements
//   listed        uint32 [listed], rows in any order; address 0: row i is i
//   ids           uint32 [rows], e.g. sample's
//   logprobs      float [listed]
//   top_ids       uint32 [listed, top]
//   top_logprobs  float [listed, top]
//
// Of the logits as they are given: temperature, cuts and adjustments count where the caller has
// applied them. NaN counts as -infinity, whose logprob is -infinity; where the largest is
// +infinity, those equal to it share the probability. A row without any logit above -infinity has
// -infinity for all. A chosen id beyond the vocabulary gives NaN; a listed row beyond rows writes
// nothing.
//
// Requirements: addresses multiples of 4; the rules of top_logprobs_check.
//
// Contract: reads logits, listed and ids, writes the rest. No scratch. Thread-safe as fp8_gemm.
// Determinism: a row's results depend on its logits and id only, not on the other rows, on `top`
// nor on the workgroup: exp rounds, masses are 40-bit fixed point and are added exactly, top_ids
// are exact. Error of a logprob: tests/support/tolerance.h, logprob_bound.
//
// Source: the definition of log-softmax; vLLM's raw_logprobs and OpenAI's logprobs, top_logprobs
// for what is reported.
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

inline constexpr uint32_t kMaxTopLogprobs = 20;

struct TopLogprobsShape {
  uint32_t rows = 0, vocab = 0;
  uint32_t logits_stride = 0;  // elements, at least vocab
  uint32_t listed = 0;
  uint32_t top = 0;  // at most kMaxTopLogprobs and vocab

  // Every row, in order.
  [[nodiscard]] static TopLogprobsShape packed(uint32_t rows, uint32_t vocab, uint32_t top);
};

struct TopLogprobsArgs {
  DeviceAddress logits = 0, listed = 0, ids = 0;
  DeviceAddress logprobs = 0, top_ids = 0, top_logprobs = 0;
};

struct TopLogprobsConfig {
  uint32_t workgroup_size = 0;  // invocations per row, a power of two up to 1024
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status top_logprobs_check(const TopLogprobsShape& shape, const Caps& caps);
[[nodiscard]] TopLogprobsConfig top_logprobs_choose(const TopLogprobsShape& shape,
                                                    const Caps& caps);

class TopLogprobs {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<TopLogprobs> create(Device& device, const TopLogprobsConfig& config);
  // Records one dispatch; none without listed rows. Errors: those of check; kHazard from the
  // recorder.
  [[nodiscard]] Status record(Recorder& recorder, const TopLogprobsShape& shape,
                              const TopLogprobsArgs& args) const;

 private:
  TopLogprobs(const Device& device, const vk::Pipeline* pipeline);
  const Device* device_;
  const vk::Pipeline* pipeline_;
};

}  // namespace hadal
