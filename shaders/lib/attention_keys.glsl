// Where a block's keys and values lie, and how they are read. Needs before the include KEY_BF16 (1: keys
// and values are bfloat16) and KEY_FP8 (1: they are rows of an FP8 cache, layout/kv_page.h).
#ifndef HADAL_ATTENTION_KEYS_GLSL_
#define HADAL_ATTENTION_KEYS_GLSL_

#include "../layout/kv_page.h"
#include "fp8.glsl"

const uint kElementBytes = KEY_FP8 != 0 ? 1 : KEY_BF16 != 0 ? 2 : 4;

// The keys of a block: consecutive rows of a key's first part, second part and value. Of FP8 rows, a
// and value are codes (value_stride is a_stride), b is bfloat16 and scales are those of the codes.
struct AttentionKeys {
  uint64_t a, b, value, scales;
  uint a_stride, b_stride, value_stride;  // bytes
};

vec4 attention_key4(uint64_t address) {
  if (KEY_FP8 != 0) return e4m3x4_times_2_m8(UintIn(address).v);
  if (KEY_BF16 != 0) {
    uint64_t w = U64In(address).v;
    uint lo = uint(w), hi = uint(w >> 32);
    return uintBitsToFloat(uvec4(lo << 16, lo & 0xffff0000u, hi << 16, hi & 0xffff0000u));
  }
  uint64_t w0 = U64In(address).v, w1 = U64In(address + 8).v;
  return uintBitsToFloat(uvec4(uint(w0), uint(w0 >> 32), uint(w1), uint(w1 >> 32)));
}

// Four bfloat16 at a multiple of 4 bytes, as the second part of an FP8 row has them.
vec4 attention_key4_words(uint64_t address) {
  uint lo = UintIn(address).v, hi = UintIn(address + 4).v;
  return uintBitsToFloat(uvec4(lo << 16, lo & 0xffff0000u, hi << 16, hi & 0xffff0000u));
}

vec2 attention_value2(uint64_t address) {
  if (KEY_FP8 != 0) return e4m3x2_times_2_m8(uint(U16In(address).v));
  if (KEY_BF16 != 0) {
    uint w = UintIn(address).v;
    return uintBitsToFloat(uvec2(w << 16, w & 0xffff0000u));
  }
  uint64_t w = U64In(address).v;
  return uintBitsToFloat(uvec2(uint(w), uint(w >> 32)));
}

#endif  // HADAL_ATTENTION_KEYS_GLSL_
