// Scales of e4m3 operands as fp8_gemm and fp8_grouped_gemm take them: float, or e8m0, one byte e that
// stands for 2^(e-127) (0xff: NaN). Needs A_SCALE_E8M0, B_SCALE_E8M0 and B_SCALE_SHIFT before the include.
const uint kAScaleBytes = A_SCALE_E8M0 != 0 ? 1 : 4;
const uint kBScaleBytes = B_SCALE_E8M0 != 0 ? 1 : 4;

float e8m0_decode(uint e) {
  uint bits = e == 0 ? 0x00400000u : e << 23;  // 2^-127 is subnormal
  return uintBitsToFloat(e == 255 ? 0x7fc00000u : bits);
}

// Scale of block kb in a row of scales.
float a_scale_at(uint64_t row, uint kb) {
  if (A_SCALE_E8M0 != 0) return e8m0_decode(uint(U8In(row + kb).v));
  return FloatIn(row + kb * 4).v;
}
float b_scale_at(uint64_t row, uint kb) {
  if (B_SCALE_E8M0 != 0) return e8m0_decode(uint(U8In(row + kb).v));
  return FloatIn(row + kb * 4).v;
}
// The row of scales of row `col` of b.
uint64_t b_scale_row_of(uint64_t b_scale, uint col, uint stride) {
  return b_scale + uint64_t(col >> B_SCALE_SHIFT) * stride * kBScaleBytes;
}
