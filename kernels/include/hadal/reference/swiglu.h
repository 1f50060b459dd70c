// CPU reference of swiglu (hadal/swiglu.h), in double, written as the formula. The quantised output
// is reference/fp8_quantize.h applied to the device's own y.
#pragma once

#include <vector>

#include "hadal/swiglu.h"

namespace hadal::reference {

struct SwigluInputs {
  const float* gate = nullptr;
  const float* up = nullptr;
};

// [rows, n], dense. Only rows, n and the strides of gate and up are used.
[[nodiscard]] std::vector<double> swiglu(const SwigluShape& shape, const SwigluInputs& inputs);

}  // namespace hadal::reference
