#include "hadal/model/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/embedding.h"
#include "hadal/rope.h"
#include "model_impl.h"

namespace hadal::model {
namespace {

// In pieces: a table of a long context is large, and the host's copy comes on top of the plan.
Status upload_rope_table(Device& device, const ModelConfig& config, uint32_t positions,
                         const Buffer& table) {
  const std::vector<double> frequencies = config.rope_inverse_frequencies();
  constexpr uint32_t kPiece = 4096;
  for (uint32_t first = 0; first < positions; first += kPiece) {
    const std::vector<float> piece = rope_table(frequencies, config.rope_amplitude(), first,
                                                std::min(kPiece, positions - first));
    HADAL_TRY(device.upload(table, 4ull * first * config.qk_rope_head_dim,
                            std::as_bytes(std::span(piece))));
  }
  return {};
}

}  // namespace

Status Model::Impl::check_tokens(uint32_t tokens, uint32_t most) const {
  if (tokens >= 1 && tokens <= most) return {};
  return {Errc::kInvalidArgument,
          fmt::format("model: tokens of a batch must be 1 to {}, got {}", most, tokens)};
}

Status Model::Impl::embed(Recorder& recorder, DeviceAddress table, DeviceAddress ids,
                          uint32_t tokens, const Rows& y) const {
  EmbeddingShape shape;
  shape.tokens = tokens, shape.hidden = config.hidden_size, shape.vocab = config.vocab_size;
  shape.table_stride = weights.embedding_stride;
  shape.y_stride = y.stride;
  EmbeddingArgs args;
  args.ids = ids, args.table = table, args.y = y.address;
  HADAL_TRY(ops.record<Embedding>(recorder, embedding_choose, shape, args));
  recorder.barrier();
  return {};
}

Status Model::Impl::head(Recorder& recorder, const LinearWeight& w, uint32_t first,
                         uint32_t rows) const {
  HADAL_TRY(check_tokens(rows, options.max_logit_rows));
  Activation act;
  act.f32 = {work.hidden.address + 4ull * first * work.hidden.stride, work.hidden.stride};
  HADAL_TRY(ops.linear(recorder, w, act, rows, {logits.address(), config.vocab_size}));
  recorder.barrier();
  return {};
}

Status Model::Impl::head(Recorder& recorder, const LinearWeight& w,
                         std::span<const uint32_t> rows) const {
  const auto count = uint32_t(rows.size());
  HADAL_TRY(check_tokens(count, options.max_logit_rows));
  for (const uint32_t row : rows) HADAL_TRY(check_tokens(row + 1, options.max_tokens));
  bool adjacent = true;
  for (uint32_t i = 0; i < count; ++i) adjacent = adjacent && rows[i] == rows[0] + i;
  if (adjacent) return head(recorder, w, rows[0], count);
  // The weight is read once for all rows, so they have to lie together.
  const uint64_t row_bytes = 4ull * work.hidden.stride, base = work.buffer.address();
  for (uint32_t i = 0; i < count; ++i) {
    HADAL_TRY(recorder.copy(work.buffer, work.hidden.address - base + rows[i] * row_bytes,
                            work.buffer, work.head_in.address - base + i * row_bytes, row_bytes));
  }
  recorder.barrier();
  Activation act;
  act.f32 = work.head_in;
  HADAL_TRY(ops.linear(recorder, w, act, count, {logits.address(), config.vocab_size}));
  recorder.barrier();
  return {};
}

Result<std::unique_ptr<Model>> Model::create(Device& device, ModelConfig config, Weights weights,
                                             const ModelOptions& options) {
  if (options.max_tokens == 0 || options.max_context == 0 || options.max_logit_rows == 0 ||
      options.max_decode_rows == 0 || options.max_decode_rows > options.max_tokens) {
    return Status(Errc::kInvalidArgument,
                  "model: max_tokens, max_context, max_logit_rows and max_decode_rows must be at "
                  "least 1, and max_decode_rows at most max_tokens");
  }
  if (options.expansion_rows == 0 || options.expansion_rows % 64) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("model: expansion_rows must be a positive multiple of 64, got {}",
                              options.expansion_rows));
  }
  HADAL_TRY(check_supported(config, options, device.caps()));
  HADAL_ASSIGN(Workspace work, Workspace::create(device, config, options));
  HADAL_ASSIGN(Buffer rope, device.allocate(4ull * options.max_context * config.qk_rope_head_dim));
  HADAL_TRY(upload_rope_table(device, config, options.max_context, rope));
  HADAL_ASSIGN(Buffer logits, device.allocate(4ull * options.max_logit_rows * config.vocab_size));
  auto impl = std::make_unique<Impl>(device, std::move(config), options, std::move(weights),
                                     std::move(work), std::move(rope), std::move(logits));
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const ModelConfig& Model::config() const {
  return impl_->config;
}
const Weights& Model::weights() const {
  return impl_->weights;
}
const ModelOptions& Model::options() const {
  return impl_->options;
}
DeviceAddress Model::x() const {
  return impl_->work.x.address;
}
DeviceAddress Model::hidden() const {
  return impl_->work.hidden.address;
}
uint32_t Model::row_stride() const {
  return impl_->work.hidden.stride;
}
const Buffer& Model::workspace() const {
  return impl_->work.buffer;
}
const Buffer& Model::logits() const {
  return impl_->logits;
}

Status Model::record_embedding(Recorder& recorder, DeviceAddress ids, uint32_t tokens) {
  HADAL_TRY(impl_->check_tokens(tokens, impl_->options.max_tokens));
  return impl_->embed(recorder, impl_->weights.embedding, ids, tokens, impl_->work.x);
}

Status Model::record_layer(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                           const PrefillBatch& batch, const CacheView& cache) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->options.max_tokens));
  return impl_->layer(recorder, layer, cache_layer, batch, cache);
}

Status Model::record_layer(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                           const DecodeBatch& batch, const CacheView& cache) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->options.max_decode_rows));
  return impl_->layer(recorder, layer, cache_layer, batch, cache);
}

Status Model::record_final_norm(Recorder& recorder, uint32_t tokens) {
  const ModelConfig& c = impl_->config;
  HADAL_TRY(impl_->ops.norm(recorder, impl_->work.x, impl_->weights.final_norm, c.rms_norm_eps,
                            tokens, c.hidden_size, Activation{impl_->work.hidden, {}, {}},
                            Forms{/*f32=*/true, /*fp8=*/false}));
  recorder.barrier();
  return {};
}

Status Model::record_head(Recorder& recorder, uint32_t first, uint32_t rows) {
  return impl_->head(recorder, impl_->weights.head, first, rows);
}

Status Model::record_head(Recorder& recorder, std::span<const uint32_t> rows) {
  return impl_->head(recorder, impl_->weights.head, rows);
}

Status Model::record(Recorder& recorder, const PrefillBatch& batch, const CacheView& cache) {
  HADAL_TRY(record_embedding(recorder, batch.ids, batch.tokens));
  for (uint32_t i = 0; i < impl_->config.num_hidden_layers; ++i) {
    HADAL_TRY(record_layer(recorder, impl_->weights.layers[i], i, batch, cache));
  }
  return record_final_norm(recorder, batch.tokens);
}

Status Model::record(Recorder& recorder, const DecodeBatch& batch, const CacheView& cache) {
  HADAL_TRY(record_embedding(recorder, batch.ids, batch.tokens));
  for (uint32_t i = 0; i < impl_->config.num_hidden_layers; ++i) {
    HADAL_TRY(record_layer(recorder, impl_->weights.layers[i], i, batch, cache));
  }
  return record_final_norm(recorder, batch.tokens);
}

}  // namespace hadal::model
