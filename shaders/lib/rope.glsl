// The rotation of one pair of channels. Every use rounds alike: one product, then mac().
vec2 rope_rotate(vec2 x, vec2 cos_sin) {
  precise float a = x.x * cos_sin.x;
  precise float b = x.x * cos_sin.y;
  return vec2(mac(-x.y, cos_sin.y, a), mac(x.y, cos_sin.x, b));
}

// cos and sin of pair i at a position; NaN past the table's end, which is not read.
vec2 rope_cos_sin(uint64_t table, uint position, uint max_position, uint pairs, uint i) {
  if (position >= max_position) return vec2(uintBitsToFloat(0x7fc00000u));
  uint64_t entry = table + (uint64_t(position) * pairs + i) * 8;
  return vec2(FloatIn(entry).v, FloatIn(entry + 4).v);
}
