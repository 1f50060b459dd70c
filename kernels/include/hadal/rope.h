// rope: rotates, in place, pairs (a, b) of the channels of every head of a row at position p:
// a' = a cos(p f_i) - b sin(p f_i), b' = a sin(p f_i) + b cos(p f_i).
//
//   x          float [rows, heads, dim], channel c of head h of row r at x[r * row_stride +
//              h * head_stride + offset + c]; pair i is (2i, 2i+1) when interleaved (DeepSeek's
//              checkpoints), (i, i + dim/2) otherwise
//   positions  uint32 [rows]
//   table      float [max_position, dim/2, 2]: amplitude * cos(p f_i), amplitude * sin(p f_i), made
//              by rope_table(). YaRN changes the frequencies (and the amplitude) only.
//
// Requirements: dim even; addresses multiples of their element; any rows, heads, dim >= 0. A row
// whose position is max_position or more becomes NaN (its rotated channels) instead of reading past
// the table.
//
// Contract: reads positions and table, reads and writes x (declared as one range from its first to
// its last rotated channel; the channels between stay as they are). No scratch. record() may be
// called from several threads on different recorders. Determinism: two products and one sum per
// channel; the bits of a row depend on the row and its position only. Error bound:
// tests/support/tolerance.h, rope_bound.
//
// Source: RoFormer (arXiv 2104.09864) 3.2.2; YaRN (arXiv 2309.00071); apply_rotary_emb in
// DeepSeek-V3's inference/model.py.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct RopeShape {
  uint32_t rows = 0, heads = 0, dim = 0;
  uint32_t row_stride = 0;   // elements
  uint32_t head_stride = 0;  // elements, at least offset + dim
  uint32_t offset = 0;       // first rotated channel of a head
  bool interleaved = true;
  uint32_t max_position = 0;  // rows of the table

  // Heads of `dim` rotated channels and nothing else.
  [[nodiscard]] static RopeShape packed(uint32_t rows, uint32_t heads, uint32_t dim,
                                        uint32_t max_position);
};

struct RopeArgs {
  DeviceAddress x = 0, positions = 0, table = 0;
};

// The table's rows for positions [first_position, first_position + positions), computed in double:
// float [positions, inverse_frequencies.size(), 2], each value within half an ulp + 1e-10 of
// amplitude * cos/sin(p f). A float angle would be off by 0.01 at position 163,839, and Vulkan
// promises its own sin to 2^-11 only.
[[nodiscard]] std::vector<float> rope_table(std::span<const double> inverse_frequencies,
                                            double amplitude, uint32_t first_position,
                                            uint32_t positions);

struct RopeConfig {
  uint32_t workgroup_size = 0;  // invocations, along the pairs of a head
  uint32_t heads_per_group = 0;
  bool use_fma = false;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status rope_check(const RopeShape& shape, const Caps& caps);
// Pure; requires rope_check to be ok.
[[nodiscard]] RopeConfig rope_choose(const RopeShape& shape, const Caps& caps);

class Rope {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<Rope> create(Device& device, const RopeConfig& config);
  // Records one dispatch. Errors: those of check; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const RopeShape& shape,
                              const RopeArgs& args) const;

 private:
  Rope(const Device& device, const vk::Pipeline* pipeline, RopeConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  RopeConfig config_;
};

}  // namespace hadal
