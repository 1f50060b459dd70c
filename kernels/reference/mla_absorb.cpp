#include "hadal/reference/mla_absorb.h"

#include <cmath>

#include "hadal/reference/formats.h"

namespace hadal::reference {

ValueAndMagnitude mla_absorb(const MlaAbsorbShape& s, const MlaAbsorbInputs& in) {
  const bool query = s.direction == MlaAbsorbDirection::kQuery;
  const auto weight = [&](size_t row, size_t l) {
    const size_t at = row * s.w_stride + l;
    if (s.weight_type == MlaAbsorbWeight::kBf16) return double(bf16_decode(in.w_bf16[at]));
    return double(e4m3_decode(in.w[at])) *
           double(in.w_scale[(row / 128) * s.w_scale_stride + l / 128]);
  };
  ValueAndMagnitude result;
  for (size_t t = 0; t < s.tokens; ++t) {
    for (size_t h = 0; h < s.heads; ++h) {
      const float* x = in.in + t * s.in_token_stride + h * s.in_head_stride;
      const size_t w_uk = h * (s.nope + s.v), w_uv = w_uk + s.nope;
      for (size_t out = 0; out < s.out_width(); ++out) {
        double value = 0, magnitude = 0;
        for (size_t i = 0; i < s.in_width(); ++i) {
          const double w = query ? weight(w_uk + i, out) : weight(w_uv + out, i);
          value += double(x[i]) * w;
          magnitude += std::fabs(double(x[i]) * w);
        }
        result.value.push_back(value);
        result.magnitude.push_back(magnitude);
      }
    }
  }
  return result;
}

}  // namespace hadal::reference
