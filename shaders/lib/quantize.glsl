// The one quantiser rule: f32 to e4m3 codes and one scale per row and group of 128 channels, bit-equal
// to reference/fp8_quantize.h. No division, reciprocal, square root or exponential: Vulkan leaves
// those inexact. Magnitudes are compared and codes are rounded as integers, so that neither NaN nor a
// driver that flushes subnormals makes a difference.
#ifndef HADAL_QUANTIZE_GLSL_
#define HADAL_QUANTIZE_GLSL_

#include "reduce.glsl"

// A workgroup (4, 8, 16 or 32 invocations) quantises one group at a time, this many consecutive
// channels per invocation.
const uint QUANTIZE_ELEMS = kFp8Block / gl_WorkGroupSize.x;

// Sums along a row have 32 chains whatever the workgroup's size: chain j takes channels 4j .. 4j+3 of
// every group of 128, ascending. An invocation holds this many of them, consecutive ones. So the bits
// of a row are the same at every subgroup size.
const uint ROW_CHAINS = 32 / gl_WorkGroupSize.x;
shared float row_chain_sums[32];

// The sum of all chains, by a binary tree of fixed shape. All invocations must call and get it.
float row_sum(float chains[ROW_CHAINS]) {
  [[unroll]] for (uint j = 0; j < ROW_CHAINS; j++) {
    row_chain_sums[gl_LocalInvocationID.x * ROW_CHAINS + j] = chains[j];
  }
  barrier();
  precise float sums[16];
  [[unroll]] for (uint i = 0; i < 16; i++) sums[i] = row_chain_sums[i] + row_chain_sums[i + 16];
  [[unroll]] for (uint half_count = 8; half_count > 0; half_count /= 2) {
    [[unroll]] for (uint i = 0; i < half_count; i++) sums[i] = sums[i] + sums[i + half_count];
  }
  barrier();  // the next call may write
  return sums[0];
}

struct Fp8Scale {
  float scale;    // NaN when the group holds a NaN or an infinity
  float inverse;  // 1/scale, as the rule computes it
  uint mask;      // 0 when scale is NaN: all codes are 0
};

// 1/s by Newton's iteration from an integer guess 5 % off: 3e-3, 7e-6, 1.3 * 2^-23 and, with the
// fourth step, 0.84 * 2^-23 for every s (Fp8QuantizeHost tests all significands).
float fp8_reciprocal(float s) {
  precise float r = uintBitsToFloat(0x7ef311c7u - floatBitsToUint(s));
  [[unroll]] for (uint i = 0; i < 4; i++) {
    precise float t = s * r;
    precise float u = 2.0 - t;
    r = r * u;
  }
  return r;
}

// amax_bits: the largest |x| of the group, as bits (above 0x7f800000 when there is a NaN).
Fp8Scale fp8_scale(uint amax_bits, bool ue8m0) {
  if (amax_bits >= 0x7f800000u) return Fp8Scale(uintBitsToFloat(0x7fc00000u), 0.0, 0u);
  uint bits = max(amax_bits, 0x38d1b717u);  // 1e-4
  if (ue8m0) {
    // amax = m * 2^E: the smallest 2^e >= amax/448 = amax/(1.75 * 2^8) has e = E - 8 + (m > 1.75).
    uint e = (bits >> 23) - 8 + ((bits & 0x7fffffu) > 0x600000u ? 1 : 0);
    return Fp8Scale(uintBitsToFloat(e << 23), uintBitsToFloat((254 - e) << 23), ~0u);
  }
  precise float s = uintBitsToFloat(bits) * uintBitsToFloat(0x3b124925u);  // nearest to 1/448
  return Fp8Scale(s, fp8_reciprocal(s), ~0u);
}

// Code of x * inverse: nearest, ties to even, at most 448; the sign is x's own.
uint fp8_encode(float x, float inverse) {
  uint x_bits = floatBitsToUint(x);
  precise float p = uintBitsToFloat(x_bits & 0x7fffffffu) * inverse;
  uint bits = floatBitsToUint(p);
  // 2^(e-127) * 1.f to units of the code's last place: 2^(e-130), but never below 2^-9 (e = 121).
  uint e = bits >> 23;
  uint shift = min(20 + (e < 121 ? 121 - e : 0), 25);
  uint m = (bits & 0x7fffffu) | 0x800000u;
  uint units = (m + (1u << (shift - 1)) - 1 + ((m >> shift) & 1u)) >> shift;
  uint code = (max(e, 121) - 121) * 8 + units;
  return min(code, 0x7eu) | ((x_bits >> 24) & 0x80u);
}

// Value of a code (neither NaN): exact.
float fp8_decode(uint code) {
  uint e = (code >> 3) & 15u, m = code & 7u;
  float magnitude = e == 0 ? float(m) * 0.001953125 : uintBitsToFloat(((e + 120) << 23) | (m << 20));
  return (code & 0x80u) != 0 ? -magnitude : magnitude;
}

// First channel, inside its group, of this invocation.
uint quantize_lane_begin() { return gl_LocalInvocationID.x * QUANTIZE_ELEMS; }

// Quantises the group that begins at channel `group_begin` of a row of n channels. x holds this
// invocation's channels from group_begin + quantize_lane_begin(); those from n on are ignored. All
// invocations must call. q_row is a multiple of 4; bytes from n on are not written. scale_bytes: the scale
// is stored as e8m0 (ue8m0 only).
void quantize_group(float x[QUANTIZE_ELEMS], uint group_begin, uint n, uint64_t q_row,
                    uint64_t scale_row, bool ue8m0, bool scale_bytes) {
  uint begin = group_begin + quantize_lane_begin();
  uint amax = 0;
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
    if (begin + i < n) amax = max(amax, floatBitsToUint(x[i]) & 0x7fffffffu);
  }
  Fp8Scale s = fp8_scale(workgroup_max(amax), ue8m0);
  if (gl_LocalInvocationID.x == 0) {
    uint group = group_begin / kFp8Block;
    if (scale_bytes) {
      // The exponent of a positive power of two is its e8m0 code; the NaN's gives 0xff.
      U8Out(scale_row + group).v = uint8_t(floatBitsToUint(s.scale) >> 23);
    } else {
      FloatOut(scale_row + group * 4).v = s.scale;
    }
  }
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i += 4) {
    uint c = begin + i;
    uint word = fp8_encode(x[i], s.inverse) | (fp8_encode(x[i + 1], s.inverse) << 8) |
                (fp8_encode(x[i + 2], s.inverse) << 16) | (fp8_encode(x[i + 3], s.inverse) << 24);
    word &= s.mask;
    if (c + 4 <= n) {
      UintOut(q_row + c).v = word;
    } else {
      for (uint j = 0; c + j < n; j++) U8Out(q_row + c + j).v = uint8_t(word >> (8 * j));
    }
  }
}

// The same with scales stored as floats.
void quantize_group(float x[QUANTIZE_ELEMS], uint group_begin, uint n, uint64_t q_row,
                    uint64_t scale_row, bool ue8m0) {
  quantize_group(x, group_begin, n, q_row, scale_row, ue8m0, false);
}

// x, each value replaced by what quantising its group and decoding again gives: code * scale, one
// rounding. NaN throughout a group that holds a NaN or an infinity. All invocations must call.
void round_group(inout float x[QUANTIZE_ELEMS], uint group_begin, uint n, bool ue8m0) {
  uint begin = group_begin + quantize_lane_begin();
  uint amax = 0;
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
    if (begin + i < n) amax = max(amax, floatBitsToUint(x[i]) & 0x7fffffffu);
  }
  Fp8Scale s = fp8_scale(workgroup_max(amax), ue8m0);
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
    precise float value = fp8_decode(fp8_encode(x[i], s.inverse) & s.mask) * s.scale;
    x[i] = value;
  }
}

#endif  // HADAL_QUANTIZE_GLSL_
