// swiglu: y[r,i] = silu(gate[r,i]) * up[r,i] with silu(x) = x / (1 + exp(-x)), stored as float, or
// quantised to e4m3 by the rule of fp8_quantize, or both.
//
//   gate      float [rows, n], row stride gate_stride
//   up        float [rows, n], row stride up_stride (may be the other half of gate's rows)
//   y         float [rows, n], row stride y_stride; written with write_y
//   q, scale  e4m3 [rows, n] (q_stride bytes), float [rows, ceil(n/128)] (scale_stride); written
//             with quantize, bit-equal to fp8_quantize of y
//
// SwigluTiles is the same for the rows of a tile list only (grouped_gemm.h), dispatched indirectly
// with {x = runs(n), y = tiles, z = 1}: what stands behind a grouped GEMM whose operands have more
// rows than the routing fills, as the masked form's.
//
// Requirements: q a multiple of 16, the other addresses multiples of 4; q_stride a multiple of 16
// bytes; any rows, n >= 0. y may be gate or up itself (same address and stride); otherwise outputs
// must not overlap inputs. Operands that an option leaves out may be 0.
//
// Values: silu(-inf) and silu(x) for x < -87 are -0, silu(inf) = inf, silu(NaN) = NaN; then the
// product as IEEE 754 has it.
//
// Contract: reads gate and up (SwigluTiles: of the rows in tiles, and the list), writes what the
// options ask for, and nothing between n and a stride.
// No scratch. record() may be called from several threads on different recorders. Determinism: an
// element's bits depend on its gate and up only. Error bound against exact arithmetic:
// tests/support/tolerance.h, swiglu_bound.
//
// Source: DeepSeek-V3's inference/model.py, MLP and Expert; Shazeer, GLU Variants Improve
// Transformer (arXiv 2002.05202).
#pragma once

#include <cstdint>
#include <string>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"
#include "hadal/types.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct SwigluShape {
  uint32_t rows = 0, n = 0;
  uint32_t gate_stride = 0;   // elements, at least n
  uint32_t up_stride = 0;     // elements, at least n
  uint32_t y_stride = 0;      // elements, at least n
  uint32_t q_stride = 0;      // bytes, at least n
  uint32_t scale_stride = 0;  // elements, at least ceil(n/128)
  bool write_y = true;
  bool quantize = false;
  ScaleFormat scale_format = ScaleFormat::kFp32;

  // Tightest legal strides for the sizes, gate and up apart.
  [[nodiscard]] static SwigluShape packed(uint32_t rows, uint32_t n);
};

struct SwigluArgs {
  DeviceAddress gate = 0, up = 0, y = 0, q = 0, scale = 0;
};

struct SwigluConfig {
  uint32_t workgroup_size = 0;        // 4, 8, 16 or 32
  uint32_t groups_per_workgroup = 0;  // groups of 128 channels that one workgroup walks
  bool row_vectors = false;           // the form for CPU drivers with Caps::scalar_uniforms
  // Workgroups for a row of n channels: x of SwigluTiles' indirect command.
  [[nodiscard]] uint32_t runs(uint32_t n) const {
    return ceil_div(ceil_div(n, kFp8BlockElems), groups_per_workgroup);
  }
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks; strides of operands that the options
// leave out are not looked at. Pure.
[[nodiscard]] Status swiglu_check(const SwigluShape& shape, const Caps& caps);
// Pure; the same for every shape, so that one pipeline serves all.
[[nodiscard]] SwigluConfig swiglu_choose(const SwigluShape& shape, const Caps& caps);

class Swiglu {
 public:
  // Creates the pipelines, or finds them: a device keeps every pipeline once made. Thread-safe.
  [[nodiscard]] static Result<Swiglu> create(Device& device, const SwigluConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address;
  // kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const SwigluShape& shape,
                              const SwigluArgs& args) const;

 private:
  Swiglu(const Device& device, const vk::Pipeline* pipeline, const vk::Pipeline* quantizing,
         SwigluConfig config);
  const Device* device_;
  const vk::Pipeline *pipeline_, *quantizing_;  // the second where codes are asked for
  SwigluConfig config_;
};

struct SwigluTilesArgs {
  SwigluArgs operands;
  DeviceAddress tiles = 0;  // MoeTile [max_tiles]
  uint32_t max_tiles = 0;   // capacity of the list
  const Buffer* indirect_buffer = nullptr;
  uint64_t indirect_offset = 0;
};

// As swiglu_check; any rows.
[[nodiscard]] Status swiglu_tiles_check(const SwigluShape& shape, const Caps& caps);

class SwigluTiles {
 public:
  // As Swiglu, for a configuration of swiglu_choose.
  [[nodiscard]] static Result<SwigluTiles> create(Device& device, const SwigluConfig& config);
  // Records one indirect dispatch; shape.rows are those that tiles may name.
  [[nodiscard]] Status record(Recorder& recorder, const SwigluShape& shape,
                              const SwigluTilesArgs& args) const;

 private:
  SwigluTiles(const Device& device, const vk::Pipeline* pipeline, SwigluConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  SwigluConfig config_;
};

}  // namespace hadal
