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

#endif  // HADAL_ATTENTION_RESULT_GLSL_
