// CPU reference of rms_norm (hadal/rms_norm.h), in double, written as the formula. The quantised
// output is reference/fp8_quantize.h applied to the device's own y.
#pragma once

#include <vector>

#include "hadal/rms_norm.h"

namespace hadal::reference {

struct RmsNormInputs {
  const float* x = nullptr;
  const float* residual = nullptr;  // with shape.add_residual
  const float* weight = nullptr;
};

struct RmsNormResult {
  std::vector<double> h, y;         // [rows, n], dense
  std::vector<double> inverse_rms;  // [rows]: what an error bound needs (tests/support/tolerance.h)
};

// Only rows, n, add_residual, eps and the strides of x and residual are used.
[[nodiscard]] RmsNormResult rms_norm(const RmsNormShape& shape, const RmsNormInputs& inputs);

}  // namespace hadal::reference
