// CPU reference of fp8_quantize (hadal/fp8_quantize.h): the rule itself in float, not an
// approximation of it, so that devices are compared bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hadal/types.h"

namespace hadal::reference {

struct QuantizedRows {
  std::vector<uint8_t> codes;  // [rows, k], dense
  std::vector<float> scales;   // [rows, ceil(k/128)], dense
};

// x: float [rows, k], row stride x_stride elements.
[[nodiscard]] QuantizedRows fp8_quantize(uint32_t rows, uint32_t k, const float* x, size_t x_stride,
                                         ScaleFormat format);

// The parts of the rule. amax: finite, of the whole group, not yet clamped.
[[nodiscard]] float fp8_scale(float amax, ScaleFormat format) noexcept;
[[nodiscard]] float fp8_inverse_scale(float scale, ScaleFormat format) noexcept;

}  // namespace hadal::reference
