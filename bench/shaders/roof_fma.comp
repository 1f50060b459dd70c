#version 460
#extension GL_GOOGLE_include_directive : require
// roof_fma: the multiply-add peak. One invocation = 12 independent chains (two 4-cycle units need 8; 12
// and the two uniform operands fit 16 registers), iterations * 32 long.
#include "../../shaders/lib/prelude.glsl"

layout(push_constant, scalar) uniform Push {
  uint64_t result;  // float [invocations]: keeps the chains alive
  uint iterations;
  float factor, addend;
} pc;

void main() {
  float chain[12];
  [[unroll]] for (uint i = 0; i < 12; i++) chain[i] = float(gl_LocalInvocationID.x + i);
  [[dont_unroll]] for (uint n = 0; n < pc.iterations; n++) {
    [[unroll]] for (uint step = 0; step < 32; step++) {
      [[unroll]] for (uint i = 0; i < 12; i++) chain[i] = mac(chain[i], pc.factor, pc.addend);
    }
  }
  float sum = 0.0;
  [[unroll]] for (uint i = 0; i < 12; i++) sum += chain[i];
  FloatOut(pc.result + uint64_t(gl_GlobalInvocationID.x) * 4).v = sum;
}
