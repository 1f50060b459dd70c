#include "hadal/reference/bf16_grouped_gemm.h"

namespace hadal::reference {

ValueAndMagnitude bf16_grouped_gemm(const Bf16GroupedGemmShape& s,
                                    const Bf16GroupedGemmInputs& in) {
  ValueAndMagnitude result;
  Bf16GemmShape one = Bf16GemmShape::packed(1, s.n, s.k);
  one.b_stride = s.b_stride;
  for (uint32_t expert = 0, row = 0; expert < s.experts; ++expert) {
    for (; row < (*in.expert_ends)[expert]; ++row) {
      const size_t source = in.a_rows ? in.a_rows[row] : row;
      const ValueAndMagnitude r =
          bf16_gemm(one, {in.a + source * s.a_stride, nullptr, in.b[expert]});
      result.value.insert(result.value.end(), r.value.begin(), r.value.end());
      result.magnitude.insert(result.magnitude.end(), r.magnitude.begin(), r.magnitude.end());
    }
  }
  return result;
}

}  // namespace hadal::reference
