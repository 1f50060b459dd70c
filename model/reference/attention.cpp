#include <algorithm>
#include <numeric>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_quantize.h"
#include "hadal/reference/mla_absorb.h"
#include "hadal/reference/mla_cache_write.h"
#include "hadal/reference/mla_decode.h"
#include "hadal/reference/mla_prefill.h"
#include "layer.h"
#include "ops.h"

namespace hadal::model::reference {
namespace {

namespace ref = ::hadal::reference;

// Columns begin.. of x.
Matrix columns(const Matrix& x, uint32_t begin, uint32_t count) {
  Matrix part(x.rows, count);
  for (uint32_t i = 0; i < x.rows; ++i) {
    for (uint32_t c = 0; c < count; ++c) part.row(i)[c] = x.row(i)[begin + c];
  }
  return part;
}

// Latents as they are after quantising and decoding again, each group of 128 by the one rule.
void round_latents(Matrix& rows, const ModelConfig& c, ScaleFormat format) {
  for (uint32_t i = 0; i < rows.rows; ++i) {
    const auto q = ref::fp8_quantize(1, c.kv_lora_rank, rows.row(i).data(), c.kv_lora_rank, format);
    for (uint32_t l = 0; l < c.kv_lora_rank; ++l) {
      rows.row(i)[l] = ref::e4m3_decode(q.codes[l]) * q.scales[l / kFp8BlockElems];
    }
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
  const bool rounded_latents = c.is_fp8() && options.quantise_activations && options.round_latent;
  const bool fp8_rows = options.cache_format == CacheFormat::kFp8;
  if (rounded_latents || fp8_rows) {
    const bool ue8m0 = rounded_latents && c.weight_format == WeightFormat::kFp8BlockUe8m0;
    round_latents(rows, c, ue8m0 ? ScaleFormat::kUe8m0 : ScaleFormat::kFp32);
  }
  if (options.cache_format != CacheFormat::kF32) {
    for (uint32_t i = 0; i < rows.rows; ++i) {
      for (float& v : rows.row(i).subspan(fp8_rows ? c.kv_lora_rank : 0)) {
        v = ref::bf16_decode(ref::bf16_encode(v));
      }
    }
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
// Every row of the query is one sequence of a decode batch over the same pages.
Matrix attend_latent(const ModelConfig& c, const Matrix& q_latent, const Matrix& query,
                     const Matrix& cache, uint32_t past) {
  MlaDecodeShape shape;
  shape.tokens = query.rows, shape.heads = c.num_attention_heads;
  shape.rank = c.kv_lora_rank, shape.rope = c.qk_rope_head_dim;
  shape.max_kv_len = shape.cache_rows = cache.rows;
  shape.q_latent_row_stride = q_latent.columns, shape.q_latent_head_stride = c.kv_lora_rank;
  shape.q_pe_row_stride = query.columns, shape.q_pe_head_stride = c.qk_head_dim();
  shape.row_stride = cache.columns;
  shape.table_stride = 0;  // one table for all
  shape.scale = float(c.softmax_scale());
  std::vector<uint32_t> pages(cache.rows / 64 + 1), kv_lens(query.rows);
  std::iota(pages.begin(), pages.end(), 0u);
  std::iota(kv_lens.begin(), kv_lens.end(), past + 1);
  ref::MlaDecodeInputs inputs;
  inputs.q_latent = q_latent.data.data();
  inputs.q_pe = query.data.data() + c.qk_nope_head_dim;
  inputs.cache = cache.data.data();
  inputs.block_tables = pages.data(), inputs.kv_lens = kv_lens.data();
  return rounded(query.rows, shape.heads * shape.rank, ref::mla_decode(shape, inputs).value);
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
