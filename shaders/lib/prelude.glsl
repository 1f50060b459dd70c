// Included first by every shader: extensions, the workgroup size, and the multiply-accumulate whose
// rounding is part of the contract.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference2 : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_EXT_shader_8bit_storage : require
#extension GL_EXT_shader_16bit_storage : require

#include "../layout/interop.h"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 1) const uint USE_FMA = 0;

// Views of memory by device address. Alignment is what the address promises, not the row.
layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer FloatIn { float v; };
layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer Vec4In { vec4 v; };
layout(buffer_reference, scalar, buffer_reference_align = 4) buffer FloatOut { float v; };
layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer UintIn { uint v; };
layout(buffer_reference, scalar, buffer_reference_align = 4) buffer UintOut { uint v; };
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer U64In { uint64_t v; };
layout(buffer_reference, scalar, buffer_reference_align = 8) buffer U64Out { uint64_t v; };
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer Uvec2In { uvec2 v; };
layout(buffer_reference, scalar, buffer_reference_align = 2) buffer U16Out { uint16_t v; };
layout(buffer_reference, scalar, buffer_reference_align = 2) readonly buffer U16In { uint16_t v; };
layout(buffer_reference, scalar, buffer_reference_align = 1) buffer U8Out { uint8_t v; };
layout(buffer_reference, scalar, buffer_reference_align = 1) readonly buffer U8In { uint8_t v; };

// acc + a*b, rounded once (fma) or twice; the compiler may not choose, because specialisations of
// one kernel must agree bit for bit (house rule: same bits, whoever shares the batch).
float mac(float a, float b, float acc) {
  if (USE_FMA != 0) return fma(a, b, acc);
  precise float product = a * b;
  precise float sum = acc + product;
  return sum;
}

// bfloat16, round to nearest even, on the bits. NaN keeps its sign and becomes quiet.
uint bf16_encode(float x) {
  uint bits = floatBitsToUint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
float bf16_decode(uint code) { return uintBitsToFloat(code << 16); }
