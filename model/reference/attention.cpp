#include <Eigen/Core>
#include <cmath>

#include "hadal/reference/formats.h"
#include "hadal/reference/mla_cache_write.h"
#include "layer.h"
#include "ops.h"

namespace hadal::model::reference {
namespace {

namespace ref = ::hadal::reference;
using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MapD = Eigen::Map<const MatrixD>;

// Columns begin.. of x.
Matrix columns(const Matrix& x, uint32_t begin, uint32_t count) {
  Matrix part(x.rows, count);
  for (uint32_t i = 0; i < x.rows; ++i) {
    for (uint32_t c = 0; c < count; ++c) part.row(i)[c] = x.row(i)[begin + c];
  }
  return part;
}

MatrixD widened(const Matrix& x, uint32_t begin, uint32_t count) {
  MatrixD part(x.rows, count);
  for (uint32_t i = 0; i < x.rows; ++i) {
    for (uint32_t c = 0; c < count; ++c) part(i, c) = double(x.row(i)[begin + c]);
  }
  return part;
}

void store(const MatrixD& values, Matrix& x, uint32_t begin) {
  for (uint32_t i = 0; i < x.rows; ++i) {
    for (uint32_t c = 0; c < values.cols(); ++c) x.row(i)[begin + c] = float(values(i, c));
  }
}

MatrixD to_float(const MatrixD& x) {
  return x.cast<float>().cast<double>();
}

// Causal: query i sees keys 0 to past + i.
void softmax_rows(MatrixD& scores, uint32_t past) {
  for (Eigen::Index i = 0; i < scores.rows(); ++i) {
    const Eigen::Index visible = past + i + 1;
    auto row = scores.row(i).head(visible);
    row = (row.array() - row.maxCoeff()).exp().matrix().eval();
    row /= row.sum();
    scores.row(i).tail(scores.cols() - visible).setZero();
  }
}

// New rows of the cache: [norm(latent) | rope(key)].
Matrix new_cache_rows(const LayerWeights& layer, const ModelConfig& c, const Matrix& normed,
                      const ReferenceOptions& options, const RopePositions& positions) {
  const Matrix kv = linear(normed, layer.kv_a, c, options);
  const std::vector<float> norm = decode_vector(*layer.kv_a_norm);
  MlaCacheWriteShape shape;
  shape.tokens = kv.rows, shape.rank = c.kv_lora_rank, shape.rope = c.qk_rope_head_dim;
  shape.y_stride = kv.columns;
  shape.max_position = kv.rows;
  shape.interleaved = c.rope_interleave;
  shape.eps = float(ModelConfig::kInnerNormEps);
  const ref::MlaCacheWriteInputs inputs{kv.data.data(), norm.data(), positions.rows.data(),
                                        positions.table.data()};
  Matrix rows = rounded(kv.rows, kv.columns, ref::mla_cache_write(shape, inputs).value);
  if (options.cache_bf16) {
    for (float& v : rows.data) v = ref::bf16_decode(ref::bf16_encode(v));
  }
  return rows;
}

// k_h = [latent W_UK_h | key], v_h = latent W_UV_h.
Matrix attend_unabsorbed(const LayerWeights& layer, const ModelConfig& c, const Matrix& query,
                         const Matrix& cache, uint32_t past, const ReferenceOptions& options) {
  const uint32_t nope = c.qk_nope_head_dim, rope_dim = c.qk_rope_head_dim, v = c.v_head_dim;
  const Matrix kv = linear(columns(cache, 0, c.kv_lora_rank), layer.kv_b, c, options);
  const MatrixD key_rope = widened(cache, c.kv_lora_rank, rope_dim);
  Matrix context(query.rows, c.num_attention_heads * v);
  for (uint32_t h = 0; h < c.num_attention_heads; ++h) {
    const MatrixD q_nope = widened(query, h * c.qk_head_dim(), nope);
    const MatrixD q_rope = widened(query, h * c.qk_head_dim() + nope, rope_dim);
    const MatrixD k_nope = widened(kv, h * (nope + v), nope);
    MatrixD scores = q_nope * k_nope.transpose();
    scores += q_rope * key_rope.transpose();
    scores *= c.softmax_scale();
    softmax_rows(scores, past);
    store(scores * widened(kv, h * (nope + v) + nope, v), context, h * v);
  }
  return context;
}

// q'_h = q_nope_h W_UK_h; o_h = W_UV_h sum_t p_t latent_t.
Matrix attend_absorbed(const LayerWeights& layer, const ModelConfig& c, const Matrix& query,
                       const Matrix& cache, uint32_t past) {
  const uint32_t nope = c.qk_nope_head_dim, rope_dim = c.qk_rope_head_dim, v = c.v_head_dim;
  const MatrixD latent = widened(cache, 0, c.kv_lora_rank);
  const MatrixD key_rope = widened(cache, c.kv_lora_rank, rope_dim);
  Matrix context(query.rows, c.num_attention_heads * v);
  for (uint32_t h = 0; h < c.num_attention_heads; ++h) {
    const std::vector<double> w = dequantise_rows(layer.kv_b, h * (nope + v), nope + v);
    const MapD w_uk(w.data(), nope, c.kv_lora_rank);
    const MapD w_uv(w.data() + size_t{nope} * c.kv_lora_rank, v, c.kv_lora_rank);
    const MatrixD q_nope = widened(query, h * c.qk_head_dim(), nope);
    const MatrixD q_rope = widened(query, h * c.qk_head_dim() + nope, rope_dim);
    const MatrixD q_latent = to_float(q_nope * w_uk);
    MatrixD scores = q_latent * latent.transpose();
    scores += q_rope * key_rope.transpose();
    scores *= c.softmax_scale();
    softmax_rows(scores, past);
    const MatrixD o_latent = to_float(scores * latent);
    store(o_latent * w_uv.transpose(), context, h * v);
  }
  return context;
}

}  // namespace

AttentionTrace run_attention(const LayerWeights& layer, const ModelConfig& c, const Matrix& x,
                             const ReferenceOptions& options, uint32_t first_position,
                             const Matrix& past) {
  AttentionTrace t;
  t.normed = rms_norm(x, *layer.input_norm, c.rms_norm_eps);
  if (c.q_lora_rank == 0) {
    t.query = linear(t.normed, layer.q, c, options);
  } else {
    t.q_latent = rms_norm(linear(t.normed, layer.q_a, c, options), *layer.q_a_norm,
                          ModelConfig::kInnerNormEps);
    t.query = linear(t.q_latent, layer.q_b, c, options);
  }
  const RopePositions positions(c, first_position, x.rows);
  rotate_query(t.query, positions, c);
  t.cache_rows = new_cache_rows(layer, c, t.normed, options, positions);

  Matrix cache(past.rows + x.rows, c.cache_row_elems());
  std::copy(past.data.begin(), past.data.end(), cache.data.begin());
  std::copy(t.cache_rows.data.begin(), t.cache_rows.data.end(),
            cache.data.begin() + std::ptrdiff_t(past.data.size()));
  t.context = options.form == AttentionForm::kAbsorbed
                  ? attend_absorbed(layer, c, t.query, cache, past.rows)
                  : attend_unabsorbed(layer, c, t.query, cache, past.rows, options);
  t.output = linear(t.context, layer.o, c, options);
  t.result = add(x, t.output);
  return t;
}

}  // namespace hadal::model::reference
