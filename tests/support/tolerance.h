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

// sigmoid as 1 / (1 + exp(-x)): exp 3 + 2|x| ulp, of which at most all reaches the result; one
// addition; a division of 2.5 ulp. An exp beyond float's range leaves 0 where the value is below
// 2^-126.
[[nodiscard]] constexpr double sigmoid_bound(double x, double value) {
  const double magnitude = x < 0 ? -x : x;
  return gamma(3.0 + 2.0 * magnitude + 1.0 + 2.5) * value + 2.0 * kTiny;
}

// softmax over n terms as exp(x - max) / sum, z = max - x >= 0: the difference's rounding moves exp
// by z*u, exp 3 + 2z ulp, the division 2.5 ulp; and the sum's own relative error, `sum_ulps`, which
// is n additions and the mean over the terms of their 3 + 3z (softmax_sum_ulps).
[[nodiscard]] constexpr double softmax_bound(double z, double value, double sum_ulps) {
  return value == 0.0 ? 2.0 * kTiny : gamma(3.0 + 3.0 * z + 2.5 + sum_ulps) * value + 2.0 * kTiny;
}

// moe_gate's weight s / (sum of top_k s + 1e-20) * scaling, or s * scaling: the relative errors of
// s and of the sum's terms (`score_ulps`, the largest of the row), top_k + 1 additions, a division
// of 2.5 ulp and a product. Scores flushed to 0 count against 1e-20.
[[nodiscard]] constexpr double gate_weight_bound(double value, double score_ulps, double top_k,
                                                 double scaling) {
  const double magnitude = value < 0 ? -value : value;
  const double scale = scaling < 0 ? -scaling : scaling;
  return gamma(2.0 * score_ulps + top_k + 1.0 + 2.5 + 1.0) * magnitude +
         scale * (top_k + 1.0) * 2.0 * kTiny / 1e-20;
}

// moe_combine: x and shared cost one addition, every slot a product and an addition; the longest
// path from a term to the result is one product and top_k + 2 additions.
[[nodiscard]] constexpr double moe_combine_bound(uint32_t top_k, double value, double magnitude) {
  return sum_bound(value, magnitude, top_k + 3.0);
}

// sample: absolute error of one token's weight w = exp(-z), z = (max - logit) / temperature,
// against the largest weight 1: a difference and a division of 2.5 ulp move z by 3.5*z*u, exp 3 +
// 2z ulp; rounded down to 2^-40. Weights are then added exactly.
[[nodiscard]] inline double sample_weight_error(double weight) {
  if (weight == 0.0) return 0x1p-40;
  const double z = -std::log(weight);
  // Where the relative error stops being small the weight is far below the fixed point.
  return 0x1p-40 + (z > 1000.0 ? 0.0 : weight * gamma(3.0 + 5.5 * z));
}

}  // namespace hadal::test
