// fp8_quantize: per row and group g of 128 consecutive channels (the last one may be shorter),
//   amax = max(max |x|, 1e-4), scale = amax/448, q = e4m3(x / scale).
//
//   x      float [rows, k], row stride x_stride
//   q      e4m3 [rows, k], row stride q_stride bytes
//   scale  float, or e8m0 with kUe8m0, [rows, ceil(k/128)], row stride scale_stride
//
// The rule, bit for bit the same on every device and in reference/fp8_quantize.h:
//   kFp32:  scale = amax * c with c the float nearest to 1/448; inverse = four Newton steps
//           r = r * (2 - scale*r) from the float of bits 0x7ef311c7 - bits(scale).
//   kUe8m0: scale = the smallest power of two >= amax/448; inverse = its exact reciprocal.
//   q = the e4m3 nearest to x * inverse, ties to even, at most 448 in magnitude, with x's sign.
// A group that holds a NaN or an infinity gets scale NaN and codes 0. The codes 0x7f and 0xff are
// never written.
//
// Requirements: x and (float) scale multiples of 4, q a multiple of 16, q_stride a multiple of 16
// bytes; any rows, k >= 0.
//
// Contract: reads x[:, :k], writes q[:, :k] and scale[:, :ceil(k/128)], and nothing between k and
// q_stride. No scratch. record() may be called from several threads on different recorders.
// Determinism: a row's bits depend on that row only, and on no device.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 3.3.2; DeepGEMM's per_token_cast_to_fp8,
// which divides by 1e-4-clamped amax/448 the same way but leaves the rounding of 1/scale open.
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

struct Fp8QuantizeShape {
  uint32_t rows = 0, k = 0;
  uint32_t x_stride = 0;      // elements, at least k
  uint32_t q_stride = 0;      // bytes, at least k
  uint32_t scale_stride = 0;  // elements, at least ceil(k/128)
  ScaleFormat scale_format = ScaleFormat::kFp32;
  ScaleType scale_type = ScaleType::kF32;  // how scales are stored

  // Tightest legal strides for the sizes.
  [[nodiscard]] static Fp8QuantizeShape packed(uint32_t rows, uint32_t k,
                                               ScaleFormat scale_format = ScaleFormat::kFp32);
};

struct Fp8QuantizeArgs {
  DeviceAddress x = 0, q = 0, scale = 0;
};

struct Fp8QuantizeConfig {
  uint32_t workgroup_size = 0;        // 4, 8, 16 or 32
  uint32_t groups_per_workgroup = 0;  // groups of 128 channels that one workgroup walks
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status fp8_quantize_check(const Fp8QuantizeShape& shape, const Caps& caps);
// Pure; the same for every shape, so that one pipeline serves all.
[[nodiscard]] Fp8QuantizeConfig fp8_quantize_choose(const Fp8QuantizeShape& shape,
                                                    const Caps& caps);

class Fp8Quantize {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  [[nodiscard]] static Result<Fp8Quantize> create(Device& device, const Fp8QuantizeConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address;
  // kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const Fp8QuantizeShape& shape,
                              const Fp8QuantizeArgs& args) const;

 private:
  Fp8Quantize(const Device& device, const vk::Pipeline* pipeline, Fp8QuantizeConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  Fp8QuantizeConfig config_;
};

}  // namespace hadal
