// Derived error bounds. u is the unit roundoff that the Vulkan specification guarantees for a
// 32-bit add or multiply: "correctly rounded" without naming the direction (Appendix: Precision and
// Operation of SPIR-V Instructions), so one whole ulp, 2^-23, unless a shader asks for
// round-to-nearest.
#pragma once

#include <cstdint>

namespace hadal::test {

inline constexpr double kU32 = 0x1p-23;
// Unit roundoff of a stored bfloat16 (8 significant bits), rounded to nearest even on the bits:
// 2^-8.
inline constexpr double kUBf16 = 0x1p-8;
// Smallest normal float: what a flushed subnormal intermediate can be off by.
inline constexpr double kTiny = 0x1p-126;

// g(n) = n*u / (1 - n*u): relative error of n successive roundings (Higham, Accuracy and
// Stability).
[[nodiscard]] constexpr double gamma(double n, double u = kU32) {
  return n * u / (1.0 - n * u);
}

// A computed sum with `roundings` on the longest path from an input to the result, of terms whose
// magnitudes add up to `magnitude`, stored with unit roundoff `u_out` (0: stored as float, exact).
[[nodiscard]] constexpr double sum_bound(double value, double magnitude, double roundings,
                                         double u_out = 0.0) {
  const double absolute = gamma(roundings) * magnitude + roundings * kTiny;
  return absolute + u_out * ((value < 0 ? -value : value) + absolute);
}

// fp8_gemm: e4m3 products are exact in float; 127 additions inside a block (128 with the zero), the
// product of the two scales, its product with the block sum, and one addition per block.
[[nodiscard]] constexpr double fp8_gemm_bound(uint32_t k, double value, double magnitude,
                                              double u_out = 0.0) {
  return sum_bound(value, magnitude, 128.0 + 2.0 + (k + 127) / 128, u_out);
}

// bf16_gemm: a product of a float and a bfloat16 rounds once (mac() may fuse, which only removes a
// rounding); 127 additions inside a segment of 128; one addition per segment. Each of the k
// products and of the additions may also flush a subnormal: at most 2k + segments times kTiny.
[[nodiscard]] constexpr double bf16_gemm_bound(uint32_t k, double value, double magnitude,
                                               double u_out = 0.0) {
  const double segments = (k + 127) / 128;
  const double absolute =
      sum_bound(value, magnitude, 1.0 + 127.0 + segments) + (2.0 * k + segments) * kTiny;
  return absolute + u_out * ((value < 0 ? -value : value) + absolute);
}

// mla_absorb: a product of a float and a weight rounds once; 127 additions inside a segment of at
// most 128, the product with the scale and one addition per segment. Segments end at absolute
// multiples of 128, so `terms` of them may touch one more than ceil(terms/128). A flushed product
// or partial sum is off by kTiny, times the decoder's 2^8 for scales of at most 1.
[[nodiscard]] constexpr double mla_absorb_bound(uint32_t terms, double value, double magnitude) {
  const double segments = (terms + 127) / 128 + 1;
  return sum_bound(value, magnitude, 1.0 + 127.0 + 1.0 + segments) +
         256.0 * (2.0 * terms + segments) * kTiny;
}

}  // namespace hadal::test
