// Number formats and small vocabulary that several kernels share.
#pragma once

#include <cstdint>

namespace hadal {

// Scale blocks of DeepSeek's FP8 scheme: 128 channels of an activation row, 128x128 of a weight.
inline constexpr uint32_t kFp8BlockElems = 128;

enum class ElementType { kF32, kBf16 };
[[nodiscard]] constexpr uint32_t element_bytes(ElementType type) {
  return type == ElementType::kF32 ? 4 : 2;
}

// Rounding of a quantisation scale.
enum class ScaleFormat {
  kFp32,   // amax * (1/448)
  kUe8m0,  // the smallest power of two that is at least amax/448, stored as float
};

// Storage of a quantisation scale.
enum class ScaleType {
  kF32,
  kE8m0,  // one byte e: 2^(e-127), 0xff is NaN
};
[[nodiscard]] constexpr uint32_t scale_bytes(ScaleType type) {
  return type == ScaleType::kF32 ? 4 : 1;
}

// How fp8_gemm and fp8_grouped_gemm find the scales of their operands. The bits of a result depend
// on the scales' values only, not on their storage.
struct Fp8ScaleForm {
  ScaleType a_type = ScaleType::kF32;
  ScaleType b_type = ScaleType::kF32;
  uint32_t b_rows = kFp8BlockElems;  // rows of b per row of b_scale: 128, or 1 as a has it
  bool operator==(const Fp8ScaleForm&) const = default;
};

// A row stride in bytes for k e4m3 codes that a CPU's caches like: a multiple of 16, and not one of
// 1024, where a tile's rows would share few of their sets (fp8_gemm.md). Any legal stride is right.
[[nodiscard]] constexpr uint32_t fp8_row_stride(uint32_t k) {
  const uint32_t packed = (k + 15) / 16 * 16;
  return packed >= 2048 && packed % 1024 == 0 ? packed + 64 : packed;
}
// The same for rows of floats, in elements.
[[nodiscard]] constexpr uint32_t float_row_stride(uint32_t n) {
  return fp8_row_stride(n * 4) / 4;
}

[[nodiscard]] constexpr uint32_t ceil_div(uint32_t a, uint32_t b) {
  return a / b + (a % b != 0);
}
[[nodiscard]] constexpr uint32_t round_up(uint32_t a, uint32_t b) {
  return ceil_div(a, b) * b;
}

}  // namespace hadal
