// CPU reference of fp8_gemm (hadal/fp8_gemm.h), in double, written as the formula.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/fp8_gemm.h"

namespace hadal::reference {

// A result and, element by element, the sum of the magnitudes of the terms that made it: what an
// error bound needs (tests/support/tolerance.h).
struct ValueAndMagnitude {
  std::vector<double> value;
  std::vector<double> magnitude;
};

struct Fp8GemmInputs {
  const uint8_t* a =
      nullptr;  // packed e4m3, whatever shape.a_layout says; row stride shape.a_stride
  const float* a_scale = nullptr;
  const uint8_t* b = nullptr;
  const float* b_scale = nullptr;
};

// [m, n], dense. Only m, n, k, the strides and scales.b_rows of `shape` are used; scales are floats
// whatever its scale types (formats.h decodes e8m0).
[[nodiscard]] ValueAndMagnitude fp8_gemm(const Fp8GemmShape& shape, const Fp8GemmInputs& inputs);

}  // namespace hadal::reference
