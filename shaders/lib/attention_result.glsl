// From running sums to results; the same operations whoever folded the sums last.
#ifndef HADAL_ATTENTION_RESULT_GLSL_
#define HADAL_ATTENTION_RESULT_GLSL_

// No key at all gives 0.
vec2 attention_normalise(vec2 o, float l) {
  if (l == 0.0) return vec2(0.0);
  return o / l;
}

// ln(sum(exp(score))); -infinity without a key.
float attention_lse(float m, float l) {
  if (l == 0.0) return uintBitsToFloat(0xff800000u);
  return m + log(l);
}

// Two neighbours of a result of floats, or of bfloat16; `bf16` is a constant.
void attention_store(bool bf16, uint64_t base, uint64_t element, vec2 o) {
  if (bf16) {
    U16Out(base + element * 2ul).v = uint16_t(bf16_encode(o.x));
    U16Out(base + element * 2ul + 2ul).v = uint16_t(bf16_encode(o.y));
  } else {
    FloatOut(base + element * 4ul).v = o.x;
    FloatOut(base + element * 4ul + 4ul).v = o.y;
  }
}

#endif  // HADAL_ATTENTION_RESULT_GLSL_
