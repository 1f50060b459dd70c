#version 460
#extension GL_GOOGLE_include_directive : require
// embedding: y[t] = table[ids[t]], bfloat16 to float. One workgroup = one token (x) and a run of
// channels (y), kEmbeddingElemsPerInvocation per invocation, neighbours side by side.
#include "lib/prelude.glsl"
#include "layout/embedding.h"

layout(push_constant, scalar) uniform Push { EmbeddingPush pc; };

void main() {
  uint token = gl_WorkGroupID.x, width = gl_WorkGroupSize.x;
  uint id = UintIn(pc.ids + uint64_t(token) * 4).v;
  bool known = id < pc.vocab;
  uint64_t table_row = pc.table + uint64_t(known ? id : 0) * pc.table_stride * 2;
  uint64_t y_row = pc.y + uint64_t(token) * pc.y_stride * 4;
  uint begin = gl_WorkGroupID.y * (width * kEmbeddingElemsPerInvocation) + gl_LocalInvocationID.x;
  [[unroll]] for (uint i = 0; i < kEmbeddingElemsPerInvocation; i++) {
    uint c = begin + i * width;
    if (c < pc.hidden) {
      uint bits = 0x7fc00000u;  // NaN for an unknown id; nothing is read outside the table
      if (known) bits = uint(U16In(table_row + c * 2).v) << 16;
      UintOut(y_row + c * 4).v = bits;
    }
  }
}
