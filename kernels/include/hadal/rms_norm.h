// rms_norm: h = x (+ residual);  y[r,i] = h[r,i] / sqrt(mean_i(h[r,i]^2) + eps) * weight[i], stored
// as float, or quantised to e4m3 by the rule of fp8_quantize, or both.
//
//   x         float [rows, n], row stride x_stride
//   residual  float [rows, n], row stride residual_stride; with add_residual
//   weight    float [n]
//   h         float [rows, n], row stride h_stride; written with write_h
//   y         float [rows, n], row stride y_stride; written with write_y
//   q, scale  e4m3 [rows, n] (q_stride bytes), float [rows, ceil(n/128)] (scale_stride); written
//             with quantize, bit-equal to fp8_quantize of y
//
// Requirements: q a multiple of 16, the other addresses multiples of 4; q_stride a multiple of 16
// bytes; eps in [1e-12, 1]; any rows, n >= 0. |h| below 2^63, or its square overflows and the row
// becomes 0. h may be x or residual itself (same address and stride), and so may y where that
// operand is not needed afterwards; otherwise outputs must not overlap inputs. Operands that an
// option leaves out may be 0.
//
// Contract: reads x, residual and weight, writes what the options ask for, and nothing between n
// and a stride. No scratch. record() may be called from several threads on different recorders.
// Determinism: a row's bits depend on that row and weight only, not on rows, and not on which of h,
// y and q are written. Error bound against exact arithmetic: tests/support/tolerance.h,
// rms_norm_bound. A NaN in a row makes its y NaN and its codes 0 with NaN scales.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437); DeepSeek-V3's inference/model.py,
// RMSNorm.
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

struct RmsNormShape {
  uint32_t rows = 0, n = 0;
  uint32_t x_stride = 0;         // elements, at least n
  uint32_t residual_stride = 0;  // elements, at least n
  uint32_t h_stride = 0;         // elements, at least n
  uint32_t y_stride = 0;         // elements, at least n
  uint32_t q_stride = 0;         // bytes, at least n
  uint32_t scale_stride = 0;     // elements, at least ceil(n/128)
  bool add_residual = false;
  bool write_h = false;
  bool write_y = true;
  bool quantize = false;
  ScaleFormat scale_format = ScaleFormat::kFp32;
  float eps = 1e-6f;

  // Tightest legal strides for the sizes.
  [[nodiscard]] static RmsNormShape packed(uint32_t rows, uint32_t n);
};

struct RmsNormArgs {
  DeviceAddress x = 0, residual = 0, weight = 0, h = 0, y = 0, q = 0, scale = 0;
};

struct RmsNormConfig {
  uint32_t workgroup_size = 0;  // 4, 8, 16 or 32
  bool use_fma = false;
  bool row_vectors = false;  // the form for CPU drivers with Caps::scalar_uniforms
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks; strides of operands that the options
// leave out are not looked at. Pure.
[[nodiscard]] Status rms_norm_check(const RmsNormShape& shape, const Caps& caps);
// Pure; the same for every shape, so that one pipeline serves all.
[[nodiscard]] RmsNormConfig rms_norm_choose(const RmsNormShape& shape, const Caps& caps);

class RmsNorm {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  [[nodiscard]] static Result<RmsNorm> create(Device& device, const RmsNormConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address;
  // kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const RmsNormShape& shape,
                              const RmsNormArgs& args) const;

 private:
  RmsNorm(const Device& device, const vk::Pipeline* pipeline, RmsNormConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  RmsNormConfig config_;
};

}  // namespace hadal
