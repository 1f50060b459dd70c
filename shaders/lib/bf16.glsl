// bfloat16 in packs: exact decode, and the loads that go with it.

layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer U64x2In { u64vec2 v; };
layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer Uvec4In { uvec4 v; };

// Two words of two packed bfloat16 to four floats.
vec4 bf16x4(uint first, uint second) {
  return uintBitsToFloat(
      uvec4(first << 16, first & 0xffff0000u, second << 16, second & 0xffff0000u));
}

// Eight values at a multiple of 16 bytes. For addresses that differ per invocation: 64-bit elements
// halve a CPU driver's gathers.
void load_bf16x8(uint64_t address, out vec4 lo, out vec4 hi) {
  u64vec2 w = U64x2In(address).v;
  lo = bf16x4(uint(w.x), uint(w.x >> 32));
  hi = bf16x4(uint(w.y), uint(w.y >> 32));
}

// Keeps the first `valid` of four values; a select, because padding may hold NaN.
vec4 keep(vec4 v, uint valid) {
  return mix(vec4(0.0), v, lessThan(uvec4(0, 1, 2, 3), uvec4(valid)));
}

// The same for eight.
void keep8(uint valid, inout vec4 lo, inout vec4 hi) {
  lo = keep(lo, valid);
  hi = keep(hi, valid > 4 ? valid - 4 : 0);
}
