#ifndef HADAL_SILU_GLSL_
#define HADAL_SILU_GLSL_

// x / (1 + exp(-x)) with the exponential of -|x| only: no overflow, and a divisor in [1, 2]. Below -87
// the exponential leaves the normal floats: a zero of x's sign, and no inf/inf. NaN stays NaN.
float silu(float x) {
  float e = exp(-abs(x));
  precise float numerator = x < 0.0 ? x * e : x;
  precise float result = numerator / (1.0 + e);
  return x < -87.0 ? -0.0 : result;
}

#endif  // HADAL_SILU_GLSL_
