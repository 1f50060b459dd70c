// logit_adjust: penalties, biases and masks of tokens, row by row, before a token is drawn.
//
//   For each listed row, and each token id of its edits, in this order, each step rounded once:
//     l = x[id]
//     l = l > 0 ? l * inverse_repetition : l * repetition      where prompt + generated > 0
//     l = l - frequency * generated;  l = l - presence         where generated > 0
//     l = l + bias
//     y[id] = l
//   Tokens without an edit keep x[id]. Last, tokens whose bit of the row's mask is 0 get -infinity.
//
//   x       float [rows, vocab], row stride x_stride elements
//   y       float [rows, vocab], row stride y_stride elements; may be x with the same stride
//   listed  LogitAdjustRow [listed], each row at most once
//   edits   LogitEdit [edits], those of one listed row with different ids, in any order
//   masks   uint32 [masks, ceil(vocab / 32)]: token id is bit id % 32 of word id / 32
//
// A step with a factor of 1 or a term of 0 leaves the logit's bits as they are, and so does every
// edit where x[id] is NaN or infinite; what leaves float's range is infinite. An edit of an id
// beyond the vocabulary, and a listed row beyond rows, do nothing; a mask number of `masks` or more
// is none; edits end with the array. A mask that allows nothing leaves a row of -infinity, of which
// `sample` takes id 0: who makes masks refuses it before. Rows that are not listed are neither read
// nor written.
//
// Requirements: addresses multiples of 4; the rules of logit_adjust_check.
//
// Contract: reads x, listed, edits and masks, writes y. In place only changed logits are touched.
// No scratch. Thread-safe as fp8_gemm. Determinism: a logit depends on its own x, edit and mask
// only; exact but for the roundings above (nothing is fused). There is no division: the caller
// gives the rounded inverse of the repetition penalty.
//
// Source: vLLM, model_executor/layers/utils.py (apply_penalties: these steps, with the same inverse
// in its portable form) and OpenAI's API reference for frequency and presence; repetition from
// CTRL (arXiv:1909.05858, 4.1), with the sign's case of transformers. The bias comes last, so that
// it weighs the same whether or not its token has occurred (vLLM adds it before the penalties).
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

inline constexpr uint32_t kNoLogitMask = 0xffffffffu;

// A listed row as it lies in device memory. The default changes nothing.
struct LogitAdjustRow {
  uint32_t row = 0;
  uint32_t mask = kNoLogitMask;             // a row of masks
  uint32_t edits_begin = 0, edits_end = 0;  // of edits
  float repetition = 1.0f;
  float inverse_repetition = 1.0f;  // 1 / repetition, rounded
  float frequency = 0.0f, presence = 0.0f;
};

// A token of a row as it lies in device memory.
struct LogitEdit {
  uint32_t id = 0;
  uint32_t prompt = 0, generated = 0;  // how often it occurred in each
  float bias = 0.0f;
  bool operator==(const LogitEdit&) const = default;
};

struct LogitAdjustShape {
  uint32_t rows = 0, vocab = 0;
  uint32_t x_stride = 0, y_stride = 0;  // elements, at least vocab
  uint32_t listed = 0, edits = 0, masks = 0;
  bool in_place = true;  // y is x

  // In place, without listed rows.
  [[nodiscard]] static LogitAdjustShape packed(uint32_t rows, uint32_t vocab);
};

struct LogitAdjustArgs {
  DeviceAddress x = 0, y = 0, listed = 0, edits = 0, masks = 0;
};

struct LogitAdjustConfig {
  uint32_t workgroup_size = 0;  // invocations per listed row
  bool in_place = true;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status logit_adjust_check(const LogitAdjustShape& shape, const Caps& caps);
[[nodiscard]] LogitAdjustConfig logit_adjust_choose(const LogitAdjustShape& shape,
                                                    const Caps& caps);

class LogitAdjust {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<LogitAdjust> create(Device& device, const LogitAdjustConfig& config);
  // Records one dispatch; none without listed rows. Errors: those of check; kInvalidArgument where
  // shape.in_place is not the config's or not what the addresses say; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const LogitAdjustShape& shape,
                              const LogitAdjustArgs& args) const;

 private:
  LogitAdjust(const Device& device, const vk::Pipeline* pipeline, bool in_place);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  bool in_place_;
};

}  // namespace hadal
