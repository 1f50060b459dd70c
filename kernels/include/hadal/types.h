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

[[nodiscard]] constexpr uint32_t ceil_div(uint32_t a, uint32_t b) {
  return a / b + (a % b != 0);
}
[[nodiscard]] constexpr uint32_t round_up(uint32_t a, uint32_t b) {
  return ceil_div(a, b) * b;
}

}  // namespace hadal
