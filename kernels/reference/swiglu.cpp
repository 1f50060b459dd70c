#include "hadal/reference/swiglu.h"

#include <cmath>
#include <cstddef>

namespace hadal::reference {

std::vector<double> swiglu(const SwigluShape& s, const SwigluInputs& in) {
  std::vector<double> y;
  for (uint32_t row = 0; row < s.rows; ++row) {
    for (uint32_t i = 0; i < s.n; ++i) {
      const double gate = in.gate[size_t(row) * s.gate_stride + i];
      const double up = in.up[size_t(row) * s.up_stride + i];
      // The formula's limit at -infinity, where it reads inf/inf.
      const double silu = std::isinf(gate) && gate < 0 ? -0.0 : gate / (1.0 + std::exp(-gate));
      y.push_back(silu * up);
    }
  }
  return y;
}

}  // namespace hadal::reference
