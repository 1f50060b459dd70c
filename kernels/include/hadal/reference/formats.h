// Exact conversions between float, e4m3, e8m0 and bfloat16 on the CPU.
// Source: OCP 8-bit Floating Point Specification 1.0 (E4M3), OCP Microscaling Formats 1.0 (E8M0);
// bfloat16 is the upper half of a float.
#pragma once

#include <cstdint>

namespace hadal::reference {

// Value of an e4m3 code; NaN for 0x7f and 0xff.
[[nodiscard]] float e4m3_decode(uint8_t code) noexcept;
// Nearest e4m3 code, ties to even, magnitudes above 448 saturate; NaN gives 0x7f. Keeps the sign of
// 0.
[[nodiscard]] uint8_t e4m3_encode(float value) noexcept;

// Value of an e8m0 code: 2^(code-127), NaN for 0xff.
[[nodiscard]] float e8m0_decode(uint8_t code) noexcept;

[[nodiscard]] float bf16_decode(uint16_t code) noexcept;
// Nearest bfloat16, ties to even; NaN stays a (quiet) NaN.
[[nodiscard]] uint16_t bf16_encode(float value) noexcept;

}  // namespace hadal::reference
