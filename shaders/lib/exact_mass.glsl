// Probability masses as 64-bit integers in units of 2^-40, so that sums are exact in any order: the
// same bits for any workgroup and subgroup size. The includer defines kExactSums, the number of sums
// at once, before.
#ifndef HADAL_EXACT_MASS_GLSL_
#define HADAL_EXACT_MASS_GLSL_

#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

const uint kMassBits = 40;  // exp(0) = 2^40; 2^19 of them fit 2^59
const float kMassUnit = 1.0 / 1099511627776.0;

shared uint sum_limbs[kExactSums * 3];

// A float in [0, 1] times 2^40, rounded down; 0 for NaN.
uint64_t fixed_point(float w) {
  uint bits = floatBitsToUint(w);
  if (bits > 0x7f800000u) return 0;
  bits = min(bits, 0x3f800000u);
  uint exponent = bits >> 23;
  uint64_t mantissa = uint64_t((bits & 0x007fffffu) | 0x00800000u);
  // The exponent at which the mantissa is the result.
  const uint unit = 127 + 23 - kMassBits;
  return exponent >= unit ? mantissa << (exponent - unit) : mantissa >> min(unit - exponent, 31u);
}

// Workgroup sums of 64-bit values, several at a time, in 21-bit limbs: 1024 of them fit 32 bits.
void sums_begin() {
  barrier();
  uint width = gl_WorkGroupSize.x;
  for (uint i = gl_LocalInvocationID.x; i < kExactSums * 3; i += width) sum_limbs[i] = 0;
  barrier();
}
void sums_add(uint slot, uint64_t value) {
  uint a = subgroupAdd(uint(value) & 0x1fffffu);
  uint b = subgroupAdd(uint(value >> 21) & 0x1fffffu);
  uint c = subgroupAdd(uint(value >> 42));
  if (subgroupElect()) {
    atomicAdd(sum_limbs[slot * 3], a);
    atomicAdd(sum_limbs[slot * 3 + 1], b);
    atomicAdd(sum_limbs[slot * 3 + 2], c);
  }
}
uint64_t sums_get(uint slot) {
  return uint64_t(sum_limbs[slot * 3]) + (uint64_t(sum_limbs[slot * 3 + 1]) << 21) +
         (uint64_t(sum_limbs[slot * 3 + 2]) << 42);
}

#endif  // HADAL_EXACT_MASS_GLSL_
