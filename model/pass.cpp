#include "hadal/model/pass.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/embedding.h"
#include "model_impl.h"

namespace hadal::model {

Status Pass::Impl::check_tokens(uint32_t tokens, uint32_t most) const {
  if (tokens >= 1 && tokens <= most) return {};
  return {Errc::kInvalidArgument,
          fmt::format("model: tokens of a batch must be 1 to {}, got {}", most, tokens)};
}

Status Pass::Impl::embed(Recorder& recorder, DeviceAddress table, DeviceAddress ids,
                         uint32_t tokens, const Rows& y) const {
  EmbeddingShape call;
  call.tokens = tokens, call.hidden = config.hidden_size, call.vocab = config.vocab_size;
  call.table_stride = weights.embedding_stride;
  call.y_stride = y.stride;
  EmbeddingArgs args;
  args.ids = ids, args.table = table, args.y = y.address;
  HADAL_TRY(ops.record<Embedding>(recorder, embedding_choose, call, args));
  recorder.barrier();
  return {};
}

Status Pass::Impl::head(Recorder& recorder, const LinearWeight& w, uint32_t first,
                        uint32_t rows) const {
  HADAL_TRY(check_tokens(rows, shape.logit_rows));
  Activation act;
  act.f32 = {work.hidden.address + 4ull * first * work.hidden.stride, work.hidden.stride};
  HADAL_TRY(ops.linear(recorder, w, act, rows, {logits.address(), config.vocab_size}));
  recorder.barrier();
  return {};
}

Status Pass::Impl::head(Recorder& recorder, const LinearWeight& w,
                        std::span<const uint32_t> rows) const {
  const auto count = uint32_t(rows.size());
  HADAL_TRY(check_tokens(count, shape.logit_rows));
  for (const uint32_t row : rows) HADAL_TRY(check_tokens(row + 1, shape.rows()));
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

Result<Pass> Pass::create(const Model& model, const PassShape& shape) {
  const ModelOptions& most = model.options();
  const uint32_t logit_rows = std::max(most.max_logit_rows, most.max_decode_rows);
  if (shape.prefill_tokens > most.max_tokens || shape.decode_rows > most.max_decode_rows ||
      shape.rows() == 0 || shape.logit_rows == 0 || shape.logit_rows > logit_rows) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("model: a pass must have 1 to {} prefill tokens or 1 to {} decode rows, "
                    "and 1 to {} logit rows, got {}, {} and {}",
                    most.max_tokens, most.max_decode_rows, logit_rows, shape.prefill_tokens,
                    shape.decode_rows, shape.logit_rows));
  }
  const ModelConfig& config = model.config();
  Device& device = model.impl_->ops.device();
  HADAL_ASSIGN(Workspace work, Workspace::create(device, config, most, shape));
  HADAL_ASSIGN(Buffer logits, device.allocate(4ull * shape.logit_rows * config.vocab_size));
  return Pass(std::make_unique<Impl>(*model.impl_, shape, std::move(work), std::move(logits)));
}

Pass::Pass(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pass::Pass(Pass&&) noexcept = default;
Pass& Pass::operator=(Pass&&) noexcept = default;
Pass::~Pass() = default;

const PassShape& Pass::shape() const {
  return impl_->shape;
}
DeviceAddress Pass::x() const {
  return impl_->work.x.address;
}
DeviceAddress Pass::hidden() const {
  return impl_->work.hidden.address;
}
uint32_t Pass::row_stride() const {
  return impl_->work.hidden.stride;
}
const Buffer& Pass::workspace() const {
  return impl_->work.buffer;
}
const Buffer& Pass::logits() const {
  return impl_->logits;
}

Status Pass::record_embedding(Recorder& recorder, DeviceAddress ids, uint32_t tokens) {
  HADAL_TRY(impl_->check_tokens(tokens, impl_->shape.rows()));
  return impl_->embed(recorder, impl_->weights.embedding, ids, tokens, impl_->work.x);
}

Status Pass::record_layer(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                          const PrefillBatch& batch, const CacheView& cache) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->shape.prefill_tokens));
  return impl_->layer(recorder, layer, cache_layer, batch, cache);
}

Status Pass::record_layer(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                          const DecodeBatch& batch, const CacheView& cache) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->shape.decode_rows));
  return impl_->layer(recorder, layer, cache_layer, batch, cache);
}

Status Pass::record_attention(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                              const PrefillBatch& batch, const CacheView& cache) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->shape.prefill_tokens));
  return impl_->attend(recorder, layer, cache_layer, batch, cache);
}

Status Pass::record_attention(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                              const DecodeBatch& batch, const CacheView& cache) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->shape.decode_rows));
  return impl_->attend(recorder, layer, cache_layer, batch, cache);
}

Status Pass::record_feed_forward(Recorder& recorder, const LayerWeights& layer, uint32_t tokens) {
  HADAL_TRY(impl_->check_tokens(tokens, impl_->shape.rows()));
  return impl_->feed_forward.record(recorder, layer, tokens);
}

Status Pass::record_final_norm(Recorder& recorder, uint32_t tokens) {
  const ModelConfig& c = impl_->config;
  HADAL_TRY(impl_->ops.norm(recorder, impl_->work.x, impl_->weights.final_norm, c.rms_norm_eps,
                            tokens, c.hidden_size, Activation{impl_->work.hidden, {}, {}},
                            Forms{/*f32=*/true, /*fp8=*/false}));
  recorder.barrier();
  return {};
}

Status Pass::record_head(Recorder& recorder, uint32_t first, uint32_t rows) {
  return impl_->head(recorder, impl_->weights.head, first, rows);
}

Status Pass::record_head(Recorder& recorder, std::span<const uint32_t> rows) {
  return impl_->head(recorder, impl_->weights.head, rows);
}

Status Pass::record(Recorder& recorder, const PrefillBatch& batch, const CacheView& cache) {
  HADAL_TRY(record_embedding(recorder, batch.ids, batch.tokens));
  for (uint32_t i = 0; i < impl_->config.num_hidden_layers; ++i) {
    HADAL_TRY(record_layer(recorder, impl_->weights.layers[i], i, batch, cache));
  }
  return record_final_norm(recorder, batch.tokens);
}

Status Pass::record(Recorder& recorder, const DecodeBatch& batch, const CacheView& cache) {
  HADAL_TRY(record_embedding(recorder, batch.ids, batch.tokens));
  for (uint32_t i = 0; i < impl_->config.num_hidden_layers; ++i) {
    HADAL_TRY(record_layer(recorder, impl_->weights.layers[i], i, batch, cache));
  }
  return record_final_norm(recorder, batch.tokens);
}

}  // namespace hadal::model
