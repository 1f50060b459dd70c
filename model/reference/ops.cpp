#include "ops.h"

#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <cstring>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_gemm.h"

namespace hadal::model::reference {
namespace {

namespace ref = ::hadal::reference;
using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Bytes of a mapped file may lie at any address.
template <class T>
std::vector<T> copy_as(std::span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

const uint8_t* codes(const TensorView& tensor) {
  return reinterpret_cast<const uint8_t*>(tensor.bytes.data());
}

struct Quantised {
  std::vector<uint8_t> codes;  // [m, k]
  std::vector<float> scales;   // [m, ceil(k/128)]
};

float reciprocal(float s) {
  float r = std::bit_cast<float>(0x7ef311c7u - std::bit_cast<uint32_t>(s));
  for (int i = 0; i < 4; ++i) {
    const float t = s * r;
    const float u = 2.0f - t;
    r = r * u;
  }
  return r;
}

Quantised quantise(const Matrix& x, bool ue8m0) {
  const uint32_t groups = ceil_div(x.columns, kFp8BlockElems);
  Quantised q{std::vector<uint8_t>(x.data.size()), std::vector<float>(size_t{x.rows} * groups)};
  for (uint32_t i = 0; i < x.rows; ++i) {
    for (uint32_t g = 0; g < groups; ++g) {
      const uint32_t begin = g * kFp8BlockElems;
      const uint32_t end = std::min(begin + kFp8BlockElems, x.columns);
      float amax = 1e-4f;
      for (uint32_t k = begin; k < end; ++k) amax = std::max(amax, std::fabs(x.row(i)[k]));
      float s = amax * (1.0f / 448.0f), inverse = reciprocal(s);
      if (ue8m0) {
        int e = 0;
        const float m = std::frexp(amax, &e) * 2.0f;
        e -= 1;
        e = e - 8 + (m > 1.75f);
        s = std::ldexp(1.0f, e), inverse = std::ldexp(1.0f, -e);
      }
      q.scales[size_t{i} * groups + g] = s;
      for (uint32_t k = begin; k < end; ++k) {
        q.codes[size_t{i} * x.columns + k] = ref::e4m3_encode(x.row(i)[k] * inverse);
      }
    }
  }
  return q;
}

Matrix rounded(uint32_t rows, uint32_t columns, const double* values) {
  Matrix result(rows, columns);
  for (size_t i = 0; i < result.data.size(); ++i) result.data[i] = float(values[i]);
  return result;
}

Matrix fp8_linear(const Matrix& x, const Linear& weight, bool ue8m0) {
  const Quantised a = quantise(x, ue8m0);
  const std::vector<float> b_scale = copy_as<float>(weight.scale->bytes);
  Fp8GemmShape shape;
  shape.m = x.rows, shape.n = weight.n, shape.k = weight.k;
  shape.a_stride = shape.b_stride = weight.k;
  shape.a_scale_stride = shape.b_scale_stride = ceil_div(weight.k, kFp8BlockElems);
  shape.d_stride = weight.n;
  const ref::ValueAndMagnitude d = ref::fp8_gemm(shape, {.a = a.codes.data(),
                                                         .a_scale = a.scales.data(),
                                                         .b = codes(*weight.weight),
                                                         .b_scale = b_scale.data()});
  return rounded(x.rows, weight.n, d.value.data());
}

Matrix bf16_linear(const Matrix& x, const Linear& weight) {
  const std::vector<double> b = dequantise_rows(weight, 0, weight.n);
  const Eigen::Map<const MatrixD> bm(b.data(), weight.n, weight.k);
  MatrixD a(x.rows, x.columns);
  for (size_t i = 0; i < x.data.size(); ++i) a.data()[i] = double(x.data[i]);
  const MatrixD d = a * bm.transpose();
  return rounded(x.rows, weight.n, d.data());
}

}  // namespace

Matrix linear(const Matrix& x, const Linear& weight, const ModelConfig& config) {
  if (weight.scale == nullptr) return bf16_linear(x, weight);
  return fp8_linear(x, weight, config.weight_format == WeightFormat::kFp8BlockUe8m0);
}

std::vector<double> dequantise_rows(const Linear& weight, uint32_t begin, uint32_t count) {
  const uint32_t k = weight.k;
  std::vector<double> values(size_t{count} * k);
  if (weight.scale == nullptr) {
    const auto bf16 = copy_as<uint16_t>(
        weight.weight->bytes.subspan(size_t{begin} * k * 2, size_t{count} * k * 2));
    for (size_t i = 0; i < values.size(); ++i) values[i] = double(ref::bf16_decode(bf16[i]));
    return values;
  }
  const std::vector<float> scales = copy_as<float>(weight.scale->bytes);
  const uint32_t blocks = ceil_div(k, kFp8BlockElems);
  for (uint32_t r = 0; r < count; ++r) {
    const uint32_t row = begin + r;  // scale blocks begin at absolute rows, not at a head's first
    for (uint32_t c = 0; c < k; ++c) {
      const float scale = scales[size_t{row / kFp8BlockElems} * blocks + c / kFp8BlockElems];
      const float value = ref::e4m3_decode(codes(*weight.weight)[size_t{row} * k + c]);
      values[size_t{r} * k + c] = double(value) * double(scale);
    }
  }
  return values;
}

std::vector<float> decode_vector(const TensorView& tensor) {
  if (tensor.dtype == DType::kF32) return copy_as<float>(tensor.bytes);
  std::vector<float> values;
  for (const uint16_t code : copy_as<uint16_t>(tensor.bytes)) {
    values.push_back(ref::bf16_decode(code));
  }
  return values;
}

Matrix embedding(std::span<const uint32_t> ids, const TensorView& table) {
  const uint32_t hidden = uint32_t(table.shape[1]);
  Matrix x(uint32_t(ids.size()), hidden);
  for (uint32_t i = 0; i < x.rows; ++i) {
    const size_t row_bytes = size_t{hidden} * 2;
    const auto row = copy_as<uint16_t>(table.bytes.subspan(ids[i] * row_bytes, row_bytes));
    for (uint32_t c = 0; c < hidden; ++c) x.row(i)[c] = ref::bf16_decode(row[c]);
  }
  return x;
}

Matrix rms_norm(const Matrix& x, const TensorView& weight, double eps) {
  const std::vector<float> w = decode_vector(weight);
  Matrix y(x.rows, x.columns);
  for (uint32_t i = 0; i < x.rows; ++i) {
    double squares = 0.0;
    for (const float v : x.row(i)) squares += double(v) * double(v);
    const double inverse = 1.0 / std::sqrt(squares / x.columns + eps);
    for (uint32_t c = 0; c < x.columns; ++c) {
      y.row(i)[c] = float(double(x.row(i)[c]) * inverse * double(w[c]));
    }
  }
  return y;
}

Matrix swiglu(const Matrix& gate, const Matrix& up) {
  Matrix y(gate.rows, gate.columns);
  for (size_t i = 0; i < y.data.size(); ++i) {
    const double g = double(gate.data[i]);
    y.data[i] = float(g / (1.0 + std::exp(-g)) * double(up.data[i]));
  }
  return y;
}

Matrix add(const Matrix& a, const Matrix& b) {
  Matrix sum = a;
  for (size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += b.data[i];
  return sum;
}

void rope(Matrix& x, uint32_t head_dim, uint32_t first_position, const ModelConfig& config) {
  const uint32_t dim = config.qk_rope_head_dim, pairs = dim / 2;
  const std::vector<double> frequencies = config.rope_inverse_frequencies();
  const double amplitude = config.rope_amplitude();
  for (uint32_t i = 0; i < x.rows; ++i) {
    for (uint32_t p = 0; p < pairs; ++p) {
      const double angle = double(first_position + i) * frequencies[p];
      const double cosine = double(float(std::cos(angle) * amplitude));
      const double sine = double(float(std::sin(angle) * amplitude));
      for (uint32_t end = head_dim; end <= x.columns; end += head_dim) {
        float* head = x.row(i).data() + end - dim;
        float& first = config.rope_interleave ? head[2 * p] : head[p];
        float& second = config.rope_interleave ? head[2 * p + 1] : head[p + pairs];
        const double a = double(first), b = double(second);
        first = float(a * cosine - b * sine);
        second = float(a * sine + b * cosine);
      }
    }
  }
}

}  // namespace hadal::model::reference
