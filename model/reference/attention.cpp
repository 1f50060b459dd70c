#include <Eigen/Core>
#include <cmath>

#include "hadal/reference/formats.h"
#include "hadal/reference/mla_absorb.h"
#include "hadal/reference/mla_cache_write.h"
#include "hadal/reference/mla_prefill.h"
#include "layer.h"
#include "ops.h"

namespace hadal::model::reference {
namespace {

namespace ref = ::hadal::reference;
using MatrixD = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

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
  const Matrix kv = linear(columns(cache, 0, c.kv_lora_rank), layer.kv_b, c, options);
  const Matrix key = columns(cache, c.kv_lora_rank, c.qk_rope_head_dim);
  MlaPrefillShape shape;
  shape.q_begin = past, shape.q_len = query.rows, shape.kv_rows = cache.rows;
  shape.heads = c.num_attention_heads;
  shape.nope = c.qk_nope_head_dim, shape.rope = c.qk_rope_head_dim, shape.v = c.v_head_dim;
  shape.q_row_stride = query.columns, shape.q_head_stride = c.qk_head_dim();
  shape.kv_row_stride = kv.columns, shape.k_pe_stride = key.columns;
  shape.scale = float(c.softmax_scale());
  const ref::MlaPrefillInputs inputs{query.data.data(), kv.data.data(), key.data.data()};
  return rounded(query.rows, shape.heads * shape.v, ref::mla_prefill(shape, inputs).value);
}

// One side of the absorption: q'_h = x_h W_UK_h, or o_h = W_UV_h x_h. A head of x is the first
// channels of every `head_stride`.
Matrix absorb(const LayerWeights& layer, const ModelConfig& c, const Matrix& x,
              MlaAbsorbDirection direction, uint32_t head_stride) {
  MlaAbsorbShape shape;
  shape.tokens = x.rows, shape.heads = c.num_attention_heads;
  shape.nope = c.qk_nope_head_dim, shape.v = c.v_head_dim, shape.rank = c.kv_lora_rank;
  shape.direction = direction;
  shape.w_stride = c.kv_lora_rank;
  shape.in_token_stride = x.columns, shape.in_head_stride = head_stride;
  ref::MlaAbsorbInputs inputs;
  inputs.in = x.data.data();
  const TensorView& weight = *layer.kv_b.weight;
  std::vector<uint16_t> bf16;
  std::vector<float> scales;
  if (layer.kv_b.scale != nullptr) {
    shape.weight_type = MlaAbsorbWeight::kE4m3;
    shape.w_scale_stride = ceil_div(c.kv_lora_rank, kFp8BlockElems);
    scales = copy_as<float>(layer.kv_b.scale->bytes);
    inputs.w = codes(weight), inputs.w_scale = scales.data();
  } else {
    shape.weight_type = MlaAbsorbWeight::kBf16;
    bf16 = copy_as<uint16_t>(weight.bytes);
    inputs.w_bf16 = bf16.data();
  }
  return rounded(x.rows, shape.heads * shape.out_width(), ref::mla_absorb(shape, inputs).value);
}

// Attention with the cache rows themselves as keys and their latents as values: [T, heads * rank].
Matrix attend_latent(const ModelConfig& c, const Matrix& q_latent, const Matrix& query,
                     const Matrix& cache, uint32_t past) {
  const uint32_t rank = c.kv_lora_rank, rope = c.qk_rope_head_dim;
  const MatrixD latent = widened(cache, 0, rank), key = widened(cache, rank, rope);
  Matrix output(query.rows, c.num_attention_heads * rank);
  for (uint32_t h = 0; h < c.num_attention_heads; ++h) {
    const uint32_t q_rope = h * c.qk_head_dim() + c.qk_nope_head_dim;
    MatrixD scores = widened(q_latent, h * rank, rank) * latent.transpose();
    scores += widened(query, q_rope, rope) * key.transpose();
    scores *= double(float(c.softmax_scale()));
    softmax_rows(scores, past);
    store(scores * latent, output, h * rank);
  }
  return output;
}

// q'_h = q_nope_h W_UK_h; o_h = W_UV_h sum_t p_t latent_t.
Matrix attend_absorbed(const LayerWeights& layer, const ModelConfig& c, const Matrix& query,
                       const Matrix& cache, uint32_t past) {
  const Matrix q_latent = absorb(layer, c, query, MlaAbsorbDirection::kQuery, c.qk_head_dim());
  const Matrix o_latent = attend_latent(c, q_latent, query, cache, past);
  return absorb(layer, c, o_latent, MlaAbsorbDirection::kValue, c.kv_lora_rank);
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
