// CPU reference of rope (hadal/rope.h), in double, written as the formula.
#pragma once

#include <cstdint>

#include "hadal/reference/fp8_gemm.h"
#include "hadal/rope.h"

namespace hadal::reference {

struct RopeInputs {
  const float* x = nullptr;  // strides as in the shape
  const uint32_t* positions = nullptr;
  const float* table = nullptr;
};

// The rotated channels, dense [rows, heads, dim]; NaN where the position is past the table.
[[nodiscard]] ValueAndMagnitude rope(const RopeShape& shape, const RopeInputs& inputs);

}  // namespace hadal::reference
