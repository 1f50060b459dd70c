// Derived error bounds. u is the unit roundoff that the Vulkan specification guarantees for a
// 32-bit add or multiply: "correctly rounded" without naming the direction (Appendix: Precision and
// Operation of SPIR-V Instructions), so one whole ulp, 2^-23, unless a shader asks for
// round-to-nearest.
#pragma once

#include <cmath>
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

// rms_norm's h = x + residual: one rounding.
[[nodiscard]] constexpr double rms_norm_h_bound(double h) {
  return kU32 * (h < 0 ? -h : h) + kTiny;
}

// rms_norm: h rounds once, its square once more (h's error counts twice); on the longest path an
// invocation adds its share of the row (ceil(n/128) * 128/workgroup terms) and the workgroup's
// partial sums are added; then 1/n, its product, + eps: 6 more roundings of positive terms, and one
// for flushed squares (n * kTiny against eps >= 1e-12). inversesqrt halves that error and adds 2
// ULP; h again and two products add 3. Underflow: a flushed h, and flushed products, each scaled by
// what follows (twice, for roundings).
[[nodiscard]] constexpr double rms_norm_bound(uint32_t n, uint32_t workgroup_size, double value,
                                              double inverse_rms, double weight) {
  const double additions = double((n + 127) / 128) * (128.0 / workgroup_size) + workgroup_size;
  const double e = gamma(additions + 7.0);
  const double relative = (1.0 + 0.5 * e / (1.0 - e)) * (1.0 + gamma(5)) - 1.0;
  const double w = weight < 0 ? -weight : weight;
  return relative * (value < 0 ? -value : value) + 2 * kTiny * (inverse_rms * w + w + 1.0);
}

// swiglu: e = exp(-|gate|) within 3 + 2|gate| ULP, which the quotient passes on by 1/(1+e) when e
// is also the numerator's factor (gate < 0; numerator and divisor partly cancel) and by e/(1+e)
// when it is not; gate * e, 1 + e, the product with up: one rounding each; division 2.5 ULP
// (divisor in [1, 2]). Second orders: u * 200 at most, hence 1.001. Below -87 the kernel gives 0:
// off by 88 * exp(-87) at most, less than 128 * kTiny; and a flushed silu or product.
[[nodiscard]] inline double swiglu_bound(double gate, double up, double value) {
  const double e = std::exp(-std::fabs(gate));
  const double passed = gate < 0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
  // exp(-|gate|) * |gate| is 0 in the limit.
  const double ulps =
      (std::isinf(gate) || gate < -87.0 ? 0.0 : (3.0 + 2.0 * std::fabs(gate)) * passed) + 5.5;
  return 1.001 * kU32 * ulps * std::fabs(value) + kTiny * (128.0 * std::fabs(up) + 1.0);
}

}  // namespace hadal::test
