// Loads and stores of an invocation's channels in kernels that walk a row in groups of 128
// (QUANTIZE_ELEMS consecutive channels from `c`; n > 0 channels in the row).
#ifndef HADAL_ROW_GLSL_
#define HADAL_ROW_GLSL_

#include "quantize.glsl"

// Channels from n on read the last one again, which costs less than a branch, and become 0.
void load_row(uint64_t row, uint c, uint n, out float v[QUANTIZE_ELEMS]) {
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
    float value = FloatIn(row + min(c + i, n - 1) * 4).v;
    v[i] = c + i < n ? value : 0.0;
  }
}

void store_row(uint64_t row, uint c, uint n, float v[QUANTIZE_ELEMS]) {
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
    if (c + i < n) FloatOut(row + (c + i) * 4).v = v[i];
  }
}

#endif  // HADAL_ROW_GLSL_
