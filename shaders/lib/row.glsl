// Loads and stores of an invocation's channels in kernels that walk a row in groups of 128
// (QUANTIZE_ELEMS consecutive channels from `c`; n > 0 channels in the row).
#ifndef HADAL_ROW_GLSL_
#define HADAL_ROW_GLSL_

#include "quantize.glsl"

// Whether the whole group that holds this invocation's channels is inside the row, and the row may be
// read and written 64 bits at a time: a CPU driver gathers and scatters per element. Uniform.
bool row_in_pairs(uint64_t row, uint c, uint n) {
  return c - quantize_lane_begin() + kFp8Block <= n && (uint(row) & 7u) == 0;
}

// Channels from n on read the last one again, which costs less than a branch, and become 0.
void load_row(uint64_t row, uint c, uint n, out float v[QUANTIZE_ELEMS]) {
  if (row_in_pairs(row, c, n)) {
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i += 2) {
      uint64_t w = U64In(row + (c + i) * 4).v;
      v[i] = uintBitsToFloat(uint(w));
      v[i + 1] = uintBitsToFloat(uint(w >> 32));
    }
    return;
  }
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
    float value = FloatIn(row + min(c + i, n - 1) * 4).v;
    v[i] = c + i < n ? value : 0.0;
  }
}

void store_row(uint64_t row, uint c, uint n, float v[QUANTIZE_ELEMS]) {
  if (row_in_pairs(row, c, n)) {
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i += 2) {
      U64Out(row + (c + i) * 4).v =
          uint64_t(floatBitsToUint(v[i])) | uint64_t(floatBitsToUint(v[i + 1])) << 32;
    }
    return;
  }
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
    if (c + i < n) FloatOut(row + (c + i) * 4).v = v[i];
  }
}

#endif  // HADAL_ROW_GLSL_
