// e4m3 (OCP E4M3FN): exact decode of packed bytes. Codes 0x7f/0xff (NaN) are excluded by the kernels'
// contracts and would read as +-480.

// Four bytes to four floats. The seven low bits of a byte, placed at bits 13..7 of a half, are the
// value times 2^-8 (exponent bias 15 against 7), subnormals included; unpackHalf2x16 is exact there.
vec4 e4m3x4_times_2_m8(uint v) {
  uint even = ((v & 0x007f007fu) << 7) | ((v & 0x00800080u) << 8);
  uint odd = ((v & 0x7f007f00u) >> 1) | (v & 0x80008000u);
  vec2 e = unpackHalf2x16(even);
  vec2 o = unpackHalf2x16(odd);
  return vec4(e.x, o.x, e.y, o.y);
}

// The same for the two bytes of v.
vec2 e4m3x2_times_2_m8(uint v) {
  uint spread = (v & 0xffu) | ((v & 0xff00u) << 8);
  return unpackHalf2x16(((spread & 0x007f007fu) << 7) | ((spread & 0x00800080u) << 8));
}
