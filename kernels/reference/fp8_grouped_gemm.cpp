#include "hadal/reference/fp8_grouped_gemm.h"

namespace hadal::reference {

ValueAndMagnitude fp8_grouped_gemm(const Fp8GroupedGemmShape& s, const Fp8GroupedGemmInputs& in) {
  ValueAndMagnitude result;
  Fp8GemmShape one = Fp8GemmShape::packed(1, s.n, s.k);
  one.b_stride = s.b_stride, one.b_scale_stride = s.b_scale_stride;
  one.scales = s.scales;
  for (uint32_t expert = 0, row = 0; expert < s.experts; ++expert) {
    for (; row < (*in.expert_ends)[expert]; ++row) {
      const size_t source = in.a_rows ? in.a_rows[row] : row;
      const ValueAndMagnitude r =
          fp8_gemm(one, {in.a + source * s.a_stride, in.a_scale + source * s.a_scale_stride,
                         in.b[expert], in.b_scale[expert]});
      result.value.insert(result.value.end(), r.value.begin(), r.value.end());
      result.magnitude.insert(result.magnitude.end(), r.magnitude.begin(), r.magnitude.end());
    }
  }
  return result;
}

}  // namespace hadal::reference
