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

// fp8_gemm on a cooperative matrix of depth coop_k. Products of e4m3 are exact in the unit; the
// order and the width of its sums are the driver's. Hardware that aligns the terms of one
// multiply-add to the largest and cuts them off loses at most u of the magnitudes per term and one
// for the addend (Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021: 24 bits or more of
// f16 operands), so a block of 128 costs 128 + 128 / coop_k roundings of u, and the rest is
// fp8_gemm_bound's. For float8 operands u is 2^-13: Hopper keeps about 14 bits (DeepSeek-V3
// report 3.3.2).
[[nodiscard]] constexpr double fp8_gemm_coopmat_bound(uint32_t k, uint32_t coop_k, double value,
                                                      double magnitude, double u = kU32,
                                                      double u_out = 0.0) {
  const double block = gamma(128.0 + 128.0 / coop_k, u) * magnitude;
  return (1.0 + u_out) * block + sum_bound(value, magnitude + block, 2.0 + (k + 127) / 128, u_out);
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

// rope: two products, one rounded before the sum (or both, without fma), and the sum.
[[nodiscard]] constexpr double rope_bound(double magnitude) {
  return sum_bound(0.0, magnitude, 2.0) + kTiny;
}

// A value known up to `error`, rounded once more when stored with unit roundoff u_out.
[[nodiscard]] constexpr double stored_bound(double value, double error, double u_out) {
  return error + u_out * ((value < 0 ? -value : value) + error);
}

// A value known up to `error`, stored as e4m3 code times its group's scale (fp8_quantize's rule).
// `amax`: at least what the group's largest magnitude can be. The scale is amax (at least 1e-4) by
// 448 with two roundings, or the next power of two above, less than twice that. Rounding to nearest
// moves x / scale by 2^-4 of itself (3 stored bits of significand), or by half of the smallest
// code, 2^-10, where codes are subnormal. The quotient is taken as x * inverse, off by 2 * 2^-23
// (the inverse within 0.84 * 2^-23, one product), which can also move it across a tie; 2^-20 holds
// both with the product code * scale.
[[nodiscard]] constexpr double fp8_stored_bound(double value, double error, double amax,
                                                bool ue8m0) {
  const double size = (value < 0 ? -value : value) + error;
  const double scale = (amax > 1e-4 ? amax : 1e-4) / 448.0 * (ue8m0 ? 2.0 : 1.0 + 0x1p-21);
  return error + size * (0x1p-4 + 0x1p-20) + scale * 0x1p-10;
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

// rms_norm's h = x + residual: one rounding.
[[nodiscard]] constexpr double rms_norm_h_bound(double h) {
  return kU32 * (h < 0 ? -h : h) + kTiny;
}

// rms_norm: h rounds once, its square once more (h's error counts twice); the longest path is a
// chain of 4 terms per group of 128 and a tree of 5 additions over the 32 chains; then 1/n, its
// product,
// + eps: 6 more roundings of positive terms, and one for flushed squares (n * kTiny against eps >=
// 1e-12). inversesqrt halves that error and adds 2 ULP; h again and two products add 3. Underflow:
// a flushed h, and flushed products, each scaled by what follows (twice, for roundings).
[[nodiscard]] constexpr double rms_norm_bound(uint32_t n, double value, double inverse_rms,
                                              double weight) {
  const double additions = double((n + 127) / 128) * 4.0 + 5.0;
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

// moe_combine: x and shared cost one addition, every slot a product and an addition; the longest
// path from a term to the result is one product and top_k + 2 additions.
[[nodiscard]] constexpr double moe_combine_bound(uint32_t top_k, double value, double magnitude) {
  return sum_bound(value, magnitude, top_k + 3.0);
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
// `underflow`: what flushed terms of a score add beyond dims * kTiny.
[[nodiscard]] inline double attention_weight_error(double dims, double keys, double factors,
                                                   double score_magnitude, double score_range,
                                                   double underflow = 0.0) {
  const double ds = gamma(dims + 1.0) * score_magnitude + dims * kTiny + underflow;
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

// Over FP8 rows a score's term passes its group's chain (at most 128 roundings), the product with
// the scale, and the chain over the groups and the rope channels behind: fewer than a float row's
// rank + rope where there are several groups. A flushed product query * code * 2^-8 is off by 2^8 *
// scale * kTiny.
[[nodiscard]] inline double attention_fp8_weight_error(uint32_t rank, uint32_t rope, double keys,
                                                       double factors, double score_magnitude,
                                                       double score_range, double largest_scale) {
  const double roundings =
      (rank < 128 ? rank : 128) + 1.0 + double((rank + 127) / 128) + double(rope);
  return attention_weight_error(roundings, keys, factors, score_magnitude, score_range,
                                256.0 * double(rank) * largest_scale * kTiny);
}

// The weight of a code is probability * scale: one rounding more of every term of the numerator,
// and at most keys * 448 * kTiny where it is flushed.
[[nodiscard]] inline double attention_fp8_bound(double weight_error, double keys, double magnitude,
                                                double value) {
  const double extra =
      (kU32 * (1.0 + weight_error) * magnitude + keys * 448.0 * kTiny) / (1.0 - weight_error);
  return attention_bound(weight_error, keys, magnitude, value) + extra * (1.0 + 2.5 * kU32);
}

// ln(sum exp(s_j)) = m + log(l): l's relative error, log's own (3 ULP, or 2^-21 absolute between
// 0.5 and 2), |log l| <= ln(keys), and the addition.
[[nodiscard]] inline double attention_lse_bound(double weight_error, double keys, double lse) {
  const double log_l = std::log(keys);
  const double error = weight_error / (1.0 - weight_error) + 3.0 * kU32 * log_l + 0x1p-21;
  return error + kU32 * (std::fabs(lse) + error);
}

// Attention with cooperative matrices (shaders/lib/attention_coopmat.glsl).
//
// Unit roundoff of a conversion to half. The specification says "correctly rounded" without naming
// the direction (as for kU32): one ulp of 11 significant bits.
inline constexpr double kUF16 = 0x1p-10;

// What the bounds need of a case.
struct AttentionCoopMat {
  double dims = 0, coop_k = 0;
  double keys = 0, factors = 0;  // as attention_weight_error
  double score_magnitude = 0, score_range = 0;
  double largest_product = 0;  // |scale| * the row's largest query * its largest key
  double largest_value = 0;
  bool exact = false;  // queries, keys and values are halves times their rows' powers of two
};

// The exponent x: a computed weight is the true one times a factor within [e^-x, e^x].
//
// A query or key is staged within kUF16 of itself, plus 2^-14 where a subnormal half is flushed:
// its row was scaled to a largest of at least 2^14, so that is 2^-28 of the largest. A product of
// the two is off by (2u + u^2) of itself, and by 2^-28 (1 + u) (|q| max|k| + |k| max|q|) + 2^-56
// max|q| max|k|, less than 2^-26.9 max|q| max|k|. Of FP8 rows code * scale rounds once more (2^-22
// holds it, at 2^-23 (1 + 2u)). The matrix unit sums dims terms as in fp8_gemm_coopmat_bound: dims
// + dims / coop_k roundings of 2^-23; powers of two are exact, the scale rounds once. The
// exponentials as in attention_weight_error. Additions: a chain over 64 keys, with the unit's
// roundings per multiply-add, or of l over a lane's keys and the subgroup; then per later block or
// split one product with its factor and one addition.
[[nodiscard]] inline double attention_coopmat_exponent(const AttentionCoopMat& c) {
  const double operands = c.exact ? 0.0 : 2.0 * kUF16 + kUF16 * kUF16 + 0x1p-22;
  const double staged = operands * c.score_magnitude + 0x1.13p-27 * c.dims * c.largest_product;
  const double ds =
      staged + gamma(c.dims + std::ceil(c.dims / c.coop_k) + 1.0) * (c.score_magnitude + staged) +
      (c.dims + 2.0) * kTiny;
  return ds + gamma(3.0 * (c.factors + c.score_range + 2.0 * ds)) +
         gamma(64.0 + 64.0 / c.coop_k + 2.0 * c.factors + c.keys / 64.0 * 2.0 + 2.0);
}

// o = sum_j p_j v_j / sum_j p_j: the quotient of two computed weights' factors is within e^(2x).
// In the numerator a weight is staged within kUF16, plus 2^-28 of the block's largest weight times
// its value's power of two, which with |value| <= 2^15 of that power is 2^-27 of max_j p_j max|v_j|
// for each key; a value within kUF16 plus 2^-28 of its row's largest. Neither can take o past the
// largest value, but for the roundings.
[[nodiscard]] inline double attention_coopmat_bound(const AttentionCoopMat& c, double magnitude,
                                                    double value) {
  const double x = attention_coopmat_exponent(c);
  const double size = value < 0 ? -value : value;
  const double staged = c.exact ? 1.0 + kUF16 : (1.0 + kUF16) * (1.0 + kUF16) * (1.0 + 0x1p-22);
  const double flushed = (c.keys + 1.0) * 0x1.01p-27 * c.largest_value;
  const double error = (std::expm1(2.0 * x) + std::exp(2.0 * x) * (staged - 1.0)) * magnitude +
                       std::exp(2.0 * x) * flushed;
  const double most = size + (1.0 + 4.0 * kUF16) * c.largest_value;
  return (error < most ? error : most) * (1.0 + 2.5 * kU32) + 2.5 * kU32 * size +
         c.keys * kTiny * 0x1p20;
}

[[nodiscard]] inline double attention_coopmat_lse_bound(const AttentionCoopMat& c, double lse) {
  const double error = attention_coopmat_exponent(c) + 3.0 * kU32 * std::log(c.keys) + 0x1p-21;
  return error + kU32 * (std::fabs(lse) + error);
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

// logit_adjust: a logit with its factor, the product frequency * count, and three sums; each term
// passes at most 4 roundings.
[[nodiscard]] inline double logit_adjust_bound(double value, double magnitude) {
  return magnitude == 0.0 ? 0.0 : sum_bound(value, magnitude, 4.0);
}

// top_logprobs: absolute error of one token's weight exp(-z), z = max - logit, against the largest
// weight 1: the difference's rounding moves z by z*u, exp 3 + 2z ulp; rounded down to 2^-40.
[[nodiscard]] inline double logprob_weight_error(double z) {
  if (z == 0.0) return 0.0;  // exact by definition
  return 0x1p-40 + (z > 1000.0 ? 0.0 : std::exp(-z) * gamma(3.0 + 3.0 * z));
}

// top_logprobs: -z - log(mass). The mass is an exact sum of weights with errors `mass_error` in
// all; its two halves become floats and add up (2 roundings each way). log: 3 ulp, or 2^-21 where
// its argument is within [0.5, 2]. z and the final difference round once each.
[[nodiscard]] inline double logprob_bound(double z, double mass, double mass_error) {
  const double relative = mass_error / mass + gamma(2.0);
  const double log_mass = std::log(mass), moved = -std::log1p(-relative);
  const double log_error = std::fmax(0x1p-21, 3.0 * kU32 * (std::fabs(log_mass) + moved)) + moved;
  const double error = log_error + kU32 * z;
  return error + kU32 * (z + std::fabs(log_mass) + error);
}

}  // namespace hadal::test
