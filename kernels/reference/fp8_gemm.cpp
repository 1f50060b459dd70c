#include "hadal/reference/fp8_gemm.h"

#include <Eigen/Core>

#include "hadal/reference/formats.h"

namespace hadal::reference {
namespace {

using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

MatrixD decode(const uint8_t* codes, uint32_t rows, uint32_t columns, uint32_t stride) {
  MatrixD values(rows, columns);
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t c = 0; c < columns; ++c) {
      values(r, c) = double(e4m3_decode(codes[size_t(r) * stride + c]));
    }
  }
  return values;
}

}  // namespace

ValueAndMagnitude fp8_gemm(const Fp8GemmShape& s, const Fp8GemmInputs& in) {
  MatrixD a = decode(in.a, s.m, s.k, s.a_stride);
  MatrixD b = decode(in.b, s.n, s.k, s.b_stride);
  for (uint32_t k = 0; k < s.k; ++k) {
    const uint32_t kb = k / 128;
    for (uint32_t i = 0; i < s.m; ++i)
      a(i, k) *= double(in.a_scale[size_t(i) * s.a_scale_stride + kb]);
    for (uint32_t j = 0; j < s.n; ++j) {
      b(j, k) *= double(in.b_scale[size_t(j / s.scales.b_rows) * s.b_scale_stride + kb]);
    }
  }
  const MatrixD value = a * b.transpose();
  const MatrixD magnitude = a.cwiseAbs() * b.cwiseAbs().transpose();
  ValueAndMagnitude result;
  result.value.assign(value.data(), value.data() + value.size());
  result.magnitude.assign(magnitude.data(), magnitude.data() + magnitude.size());
  return result;
}

}  // namespace hadal::reference
