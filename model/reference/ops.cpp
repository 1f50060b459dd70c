#include "ops.h"

#include <Eigen/Core>
#include <algorithm>
#include <numeric>

#include "hadal/reference/bf16_gemm.h"
#include "hadal/reference/embedding.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_gemm.h"
#include "hadal/reference/fp8_quantize.h"
#include "hadal/reference/rms_norm.h"
#include "hadal/reference/rope.h"
#include "hadal/reference/swiglu.h"

namespace hadal::model::reference {
namespace {

namespace ref = ::hadal::reference;

Matrix fp8_linear(const Matrix& x, const Linear& weight, ScaleFormat format) {
  const ref::QuantizedRows a =
      ref::fp8_quantize(x.rows, x.columns, x.data.data(), x.columns, format);
  const std::vector<float> b_scale = copy_as<float>(weight.scale->bytes);
  Fp8GemmShape shape;
  shape.m = x.rows, shape.n = weight.n, shape.k = weight.k;
  shape.a_stride = shape.b_stride = weight.k;
  shape.a_scale_stride = shape.b_scale_stride = ceil_div(weight.k, kFp8BlockElems);
  ref::Fp8GemmInputs inputs;
  inputs.a = a.codes.data(), inputs.a_scale = a.scales.data();
  inputs.b = codes(*weight.weight), inputs.b_scale = b_scale.data();
  return rounded(x.rows, weight.n, ref::fp8_gemm(shape, inputs).value);
}

Matrix bf16_linear(const Matrix& x, const Linear& weight) {
  const std::vector<uint16_t> b = copy_as<uint16_t>(weight.weight->bytes);
  Bf16GemmShape shape;
  shape.m = x.rows, shape.n = weight.n, shape.k = weight.k;
  shape.a_stride = shape.b_stride = weight.k;
  ref::Bf16GemmInputs inputs;
  inputs.a = x.data.data(), inputs.b = b.data();
  return rounded(x.rows, weight.n, ref::bf16_gemm(shape, inputs).value);
}

Matrix dequantised_linear(const Matrix& x, const Linear& weight) {
  using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const std::vector<double> a(x.data.begin(), x.data.end());
  const std::vector<double> b = dequantise_rows(weight, 0, weight.n);
  const MatrixD d = Eigen::Map<const MatrixD>(a.data(), x.rows, weight.k) *
                    Eigen::Map<const MatrixD>(b.data(), weight.n, weight.k).transpose();
  return rounded(x.rows, weight.n, {d.data(), size_t(d.size())});
}

}  // namespace

Matrix rounded(uint32_t rows, uint32_t columns, std::span<const double> values) {
  Matrix result(rows, columns);
  std::ranges::transform(values, result.data.begin(), [](double v) { return float(v); });
  return result;
}

Matrix linear(const Matrix& x, const Linear& weight, const ModelConfig& config,
              const ReferenceOptions& options) {
  if (weight.scale == nullptr) return bf16_linear(x, weight);
  if (!options.quantise_activations) return dequantised_linear(x, weight);
  return fp8_linear(x, weight,
                    config.weight_format == WeightFormat::kFp8BlockUe8m0 ? ScaleFormat::kUe8m0
                                                                         : ScaleFormat::kFp32);
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
  const std::vector<uint16_t> rows = copy_as<uint16_t>(table.bytes);
  Matrix x(uint32_t(ids.size()), uint32_t(table.shape[1]));
  EmbeddingShape shape;
  shape.tokens = x.rows, shape.hidden = x.columns, shape.vocab = uint32_t(table.shape[0]);
  shape.table_stride = x.columns;
  x.data = ref::embedding(shape, ids.data(), rows.data());
  return x;
}

Matrix rms_norm(const Matrix& x, const TensorView& weight, double eps) {
  const std::vector<float> w = decode_vector(weight);
  RmsNormShape shape;
  shape.rows = x.rows, shape.n = shape.x_stride = x.columns;
  shape.eps = float(eps);
  ref::RmsNormInputs inputs;
  inputs.x = x.data.data(), inputs.weight = w.data();
  return rounded(x.rows, x.columns, ref::rms_norm(shape, inputs).y);
}

Matrix swiglu(const Matrix& gate, const Matrix& up) {
  SwigluShape shape;
  shape.rows = gate.rows;
  shape.n = shape.gate_stride = shape.up_stride = gate.columns;
  return rounded(gate.rows, gate.columns,
                 ref::swiglu(shape, {.gate = gate.data.data(), .up = up.data.data()}));
}

Matrix add(const Matrix& a, const Matrix& b) {
  Matrix sum = a;
  for (size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += b.data[i];
  return sum;
}

RopePositions::RopePositions(const ModelConfig& config, uint32_t first, uint32_t count)
    : table(rope_table(config.rope_inverse_frequencies(), config.rope_amplitude(), first, count)),
      rows(count) {
  std::iota(rows.begin(), rows.end(), 0u);
}

void rotate_query(Matrix& query, const RopePositions& positions, const ModelConfig& config) {
  const uint32_t dim = config.qk_rope_head_dim, heads = config.num_attention_heads;
  RopeShape shape;
  shape.rows = query.rows, shape.heads = heads, shape.dim = dim;
  shape.row_stride = query.columns, shape.head_stride = config.qk_head_dim();
  shape.offset = config.qk_nope_head_dim;
  shape.interleaved = config.rope_interleave;
  shape.max_position = query.rows;
  const ref::RopeInputs inputs{query.data.data(), positions.rows.data(), positions.table.data()};
  const ref::ValueAndMagnitude rotated = ref::rope(shape, inputs);
  for (uint32_t i = 0; i < query.rows; ++i) {
    for (uint32_t c = 0; c < heads * dim; ++c) {
      const uint32_t channel = c / dim * shape.head_stride + shape.offset + c % dim;
      query.row(i)[channel] = float(rotated.value[size_t{i} * heads * dim + c]);
    }
  }
}

}  // namespace hadal::model::reference
