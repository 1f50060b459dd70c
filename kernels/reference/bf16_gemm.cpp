#include "hadal/reference/bf16_gemm.h"

#include <Eigen/Core>

#include "hadal/reference/formats.h"

namespace hadal::reference {
namespace {

void append_product(const Bf16GemmShape& s, const Bf16GemmInputs& in, size_t batch,
                    ValueAndMagnitude& result) {
  using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  MatrixD a(s.m, s.k), b(s.n, s.k);
  for (uint32_t k = 0; k < s.k; ++k) {
    for (uint32_t i = 0; i < s.m; ++i) {
      const size_t at = batch * s.a_batch_stride + size_t(i) * s.a_stride + k;
      a(i, k) = double(s.a_type == ElementType::kF32 ? in.a[at] : bf16_decode(in.a_bf16[at]));
    }
    for (uint32_t j = 0; j < s.n; ++j) {
      b(j, k) = double(bf16_decode(in.b[batch * s.b_batch_stride + size_t(j) * s.b_stride + k]));
    }
  }
  const MatrixD value = a * b.transpose();
  const MatrixD magnitude = a.cwiseAbs() * b.cwiseAbs().transpose();
  result.value.insert(result.value.end(), value.data(), value.data() + value.size());
  result.magnitude.insert(result.magnitude.end(), magnitude.data(),
                          magnitude.data() + magnitude.size());
}

}  // namespace

ValueAndMagnitude bf16_gemm(const Bf16GemmShape& s, const Bf16GemmInputs& in) {
  ValueAndMagnitude result;
  for (uint32_t batch = 0; batch < s.batch; ++batch) append_product(s, in, batch, result);
  return result;
}

}  // namespace hadal::reference
