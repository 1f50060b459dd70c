#include "hadal/reference/rms_norm.h"

#include <cmath>
#include <cstddef>

namespace hadal::reference {

RmsNormResult rms_norm(const RmsNormShape& s, const RmsNormInputs& in) {
  RmsNormResult result;
  for (uint32_t row = 0; row < s.rows; ++row) {
    std::vector<double> h(s.n);
    double squares = 0.0;
    for (uint32_t i = 0; i < s.n; ++i) {
      h[i] = in.x[size_t(row) * s.x_stride + i];
      if (s.add_residual) h[i] += double(in.residual[size_t(row) * s.residual_stride + i]);
      squares += h[i] * h[i];
    }
    const double inverse_rms = 1.0 / std::sqrt(squares / s.n + double(s.eps));
    for (uint32_t i = 0; i < s.n; ++i) {
      result.h.push_back(h[i]);
      result.y.push_back(h[i] * inverse_rms * double(in.weight[i]));
    }
    result.inverse_rms.push_back(inverse_rms);
  }
  return result;
}

}  // namespace hadal::reference
