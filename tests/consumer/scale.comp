// A pass of the host's own: y[i] = factor * x[i].
#version 460
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 64) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Floats { float v[]; };
layout(push_constant) uniform Push {
  Floats x;
  Floats y;
  uint count;
  float factor;
} pc;

void main() {
  const uint i = gl_GlobalInvocationID.x;
  if (i < pc.count) pc.y.v[i] = pc.factor * pc.x.v[i];
}
