#include "hadal/reference/formats.h"

#include <bit>
#include <cmath>

namespace hadal::reference {

float e4m3_decode(uint8_t code) noexcept {
  const int sign = code >> 7, exponent = (code >> 3) & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7)
    return std::bit_cast<float>(0x7fc00000u | (uint32_t(sign) << 31));
  const float magnitude = exponent == 0 ? std::ldexp(float(mantissa), -9)
                                        : std::ldexp(float(8 + mantissa), exponent - 10);
  return sign ? -magnitude : magnitude;
}

uint8_t e4m3_encode(float value) noexcept {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (std::isnan(value)) return 0x7f;
  const float magnitude = std::fabs(value);
  if (magnitude >= 448.0f) return sign | 0x7e;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = f * 2^exponent, f in [0.5, 1)
  if (magnitude == 0.0f || exponent < -5) exponent = -5;  // subnormal: steps of 2^-9
  // Steps of 2^(exponent-4); nearbyint rounds ties to even in the default rounding mode.
  const float steps = std::nearbyint(std::ldexp(magnitude, 4 - exponent));
  const int units = int(steps);  // 0..16
  // 16 steps carry into the next binade; the code arithmetic below does the same.
  const int code = (exponent + 5) * 8 + units;
  return sign | uint8_t(code > 0x7e ? 0x7e : code);
}

float e8m0_decode(uint8_t code) noexcept {
  return code == 255 ? std::bit_cast<float>(0x7fc00000u) : std::ldexp(1.0f, int(code) - 127);
}

float bf16_decode(uint16_t code) noexcept {
  return std::bit_cast<float>(uint32_t(code) << 16);
}

uint16_t bf16_encode(float value) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return uint16_t((bits >> 16) | 0x40u);
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace hadal::reference
