#version 460
#extension GL_GOOGLE_include_directive : require
// roof_read: the read bandwidth of a GPU. One invocation = 16 loads of 16 bytes, a grid apart, so that
// neighbours read neighbouring bytes.
#include "../../shaders/lib/prelude.glsl"

layout(buffer_reference, scalar, buffer_reference_align = 16) readonly buffer Uvec4In { uvec4 v; };

layout(push_constant, scalar) uniform Push {
  uint64_t source;  // uvec4 [16 * invocations]
  uint64_t result;  // uint [invocations]: keeps the loads alive
} pc;

void main() {
  uint invocation = gl_GlobalInvocationID.x;
  uint64_t grid = uint64_t(gl_NumWorkGroups.x) * gl_WorkGroupSize.x * 16;
  uint64_t at = pc.source + uint64_t(invocation) * 16;
  uvec4 sum = uvec4(0);
  [[unroll]] for (uint i = 0; i < 16; i++) sum ^= Uvec4In(at + i * grid).v;
  UintOut(pc.result + uint64_t(invocation) * 4).v = sum.x ^ sum.y ^ sum.z ^ sum.w;
}
