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

// rope: two products, one rounded before the sum (or both, without fma), and the sum.
[[nodiscard]] constexpr double rope_bound(double magnitude) {
  return sum_bound(0.0, magnitude, 2.0) + kTiny;
}

// A value known up to `error`, rounded once more when stored with unit roundoff u_out.
[[nodiscard]] constexpr double stored_bound(double value, double error, double u_out) {
  return error + u_out * ((value < 0 ? -value : value) + error);
}

// x * weight / sqrt(mean(x^2) + eps) over n channels. The mean: n products and sums of terms of one
// sign in any order, the product with the rounded 1/n (2 roundings) and the sum with eps: relative
// gamma(n + 4), halved by the root (at most gamma/2 + gamma^2); inversesqrt 2 ULP; two products.
// Squares that flush below kTiny change the mean by less than eps times 2^-40 as long as eps >=
// 1e-20.
[[nodiscard]] constexpr double rms_norm_bound(uint32_t n, double value) {
  const double mean = gamma(double(n) + 4.0) + 0x1p-40;
  const double relative = mean / 2 + mean * mean + gamma(4.0) * (1 + mean);
  return relative * (value < 0 ? -value : value) + 2 * kTiny;
}

// Attention: o = sum_j w_j v_j / sum_j w_j with w_j = exp(s_j - m). Any m common to all keys
// cancels.
//
// A score of `dims` terms, each through at most `dims` roundings, times scale: |ds| <= gamma(dims +
// 1)
// * score_magnitude (the largest over the row's keys). It multiplies w_j by e^ds.
// w_j is a product of `factors` exponentials (its own and one for each later change of the running
// maximum), whose arguments are <= 0 and telescope: their magnitudes add up to X <= score_range + 2
// ds. Each argument x is one rounded subtraction (e^(u|x|)), each exponential is within 3 + 2|x|
// ULP (Vulkan, Precision of extended instructions), so together gamma(3 factors + 3 X). Then the
// products with those factors and the chain of additions over the keys: gamma(keys + 2 factors +
// 1).
[[nodiscard]] inline double attention_weight_error(double dims, double keys, double factors,
                                                   double score_magnitude, double score_range) {
  const double ds = gamma(dims + 1.0) * score_magnitude + dims * kTiny;
  const double exponent =
      ds + gamma(3.0 * (factors + score_range + 2.0 * ds)) + gamma(keys + 2.0 * factors + 1.0);
  return std::expm1(exponent);
}

// The numerator is off by e * magnitude and the denominator, a sum of positive terms, by the factor
// 1 + e at most; then one division, 2.5 ULP. A weight below kTiny, against a largest weight of 1,
// may be flushed: keys * kTiny times the largest value, for which 2^20 is more than any test uses.
[[nodiscard]] inline double attention_bound(double weight_error, double keys, double magnitude,
                                            double value) {
  const double size = value < 0 ? -value : value;
  const double error = weight_error * (magnitude + size) / (1.0 - weight_error);
  return error + 2.5 * kU32 * (size + error) + keys * kTiny * 0x1p20;
}

// ln(sum exp(s_j)) = m + log(l): l's relative error, log's own (3 ULP, or 2^-21 absolute between
// 0.5 and 2), |log l| <= ln(keys), and the addition.
[[nodiscard]] inline double attention_lse_bound(double weight_error, double keys, double lse) {
  const double log_l = std::log(keys);
  const double error = weight_error / (1.0 - weight_error) + 3.0 * kU32 * log_l + 0x1p-21;
  return error + kU32 * (std::fabs(lse) + error);
}

}  // namespace hadal::test
