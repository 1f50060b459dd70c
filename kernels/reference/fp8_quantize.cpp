#include "hadal/reference/fp8_quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "hadal/reference/formats.h"

namespace hadal::reference {

float fp8_scale(float amax, ScaleFormat format) noexcept {
  amax = std::max(amax, 1e-4f);
  if (format == ScaleFormat::kFp32) return amax * (1.0f / 448.0f);
  int e = 0;
  const float m = std::frexp(amax, &e);  // amax = m * 2^e, m in [0.5, 1); 448 = 0.875 * 2^9
  return std::ldexp(1.0f, e - 9 + (m > 0.875f ? 1 : 0));
}

// Compiled without contraction (cmake/HadalTarget.cmake): every operation below rounds once.
float fp8_inverse_scale(float scale, ScaleFormat format) noexcept {
  if (format == ScaleFormat::kUe8m0) return 1.0f / scale;  // a power of two: exact
  float r = std::bit_cast<float>(0x7ef311c7u - std::bit_cast<uint32_t>(scale));
  for (int i = 0; i < 4; ++i) {
    const float t = scale * r;
    const float u = 2.0f - t;
    r = r * u;
  }
  return r;
}

QuantizedRows fp8_quantize(uint32_t rows, uint32_t k, const float* x, size_t x_stride,
                           ScaleFormat format) {
  const uint32_t groups = ceil_div(k, 128);
  QuantizedRows result{std::vector<uint8_t>(size_t(rows) * k),
                       std::vector<float>(size_t(rows) * groups)};
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t g = 0; g < groups; ++g) {
      const uint32_t begin = g * 128, end = std::min(begin + 128, k);
      const float* in = x + size_t(row) * x_stride;
      const bool finite =
          std::all_of(in + begin, in + end, [](float v) { return std::isfinite(v); });
      float& scale = result.scales[size_t(row) * groups + g];
      if (!finite) {
        scale = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      float amax = 0.0f;
      for (uint32_t c = begin; c < end; ++c) amax = std::max(amax, std::fabs(in[c]));
      scale = fp8_scale(amax, format);
      const float inverse = fp8_inverse_scale(scale, format);
      for (uint32_t c = begin; c < end; ++c) {
        result.codes[size_t(row) * k + c] = e4m3_encode(in[c] * inverse);
      }
    }
  }
  return result;
}

}  // namespace hadal::reference
