// Multi-token prediction: one more decoder layer over [norm(embedding of token i+1); norm(hidden
// i)], whose output head predicts token i+2. The embedding half comes first in the checkpoint's
// eh_proj.
#include <fmt/format.h>

#include "hadal/model/model.h"
#include "model_impl.h"

namespace hadal::model {

template <class Batch>
Status Model::Impl::mtp(Recorder& recorder, uint32_t index, const Batch& batch,
                        const CacheView& cache, DeviceAddress previous_hidden) const {
  const Impl& m = *this;
  if (index >= m.weights.mtp.size()) {
    return {Errc::kInvalidArgument,
            fmt::format("model: MTP modules loaded: {}, asked for number {}", m.weights.mtp.size(),
                        index)};
  }
  const MtpWeights& w = m.weights.mtp[index];
  const uint32_t hidden = m.config.hidden_size;
  const double eps = m.config.rms_norm_eps;
  const Forms f32{/*f32=*/true, /*fp8=*/false};
  const Rows second{m.work.mtp_in.address + 4ull * hidden, m.work.mtp_in.stride};
  HADAL_TRY(m.embed(recorder, w.embedding, batch.ids, batch.tokens, m.work.x));
  HADAL_TRY(m.ops.norm(recorder, m.work.x, w.embedding_norm, eps, batch.tokens, hidden,
                       Activation{m.work.mtp_in, {}, {}}, f32));
  recorder.barrier();  // the two halves interleave by rows, so their ranges overlap
  HADAL_TRY(m.ops.norm(recorder, {previous_hidden, m.work.hidden.stride}, w.hidden_norm, eps,
                       batch.tokens, hidden, Activation{second, {}, {}}, f32));
  recorder.barrier();
  HADAL_TRY(
      m.ops.linear(recorder, w.eh_proj, Activation{m.work.mtp_in, {}, {}}, batch.tokens, m.work.x));
  recorder.barrier();
  HADAL_TRY(m.layer(recorder, w.layer, m.config.num_hidden_layers + index, batch, cache));
  HADAL_TRY(m.ops.norm(recorder, m.work.x, w.head_norm, eps, batch.tokens, hidden,
                       Activation{m.work.hidden, {}, {}}, f32));
  recorder.barrier();
  return {};
}

Status Model::record_mtp(Recorder& recorder, uint32_t index, const PrefillBatch& batch,
                         const CacheView& cache, DeviceAddress previous_hidden) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->options.max_tokens));
  return impl_->mtp(recorder, index, batch, cache, previous_hidden);
}

Status Model::record_mtp(Recorder& recorder, uint32_t index, const DecodeBatch& batch,
                         const CacheView& cache, DeviceAddress previous_hidden) {
  HADAL_TRY(impl_->check_tokens(batch.tokens, impl_->options.max_decode_rows));
  return impl_->mtp(recorder, index, batch, cache, previous_hidden);
}

Status Model::record_mtp_head(Recorder& recorder, uint32_t index, uint32_t first, uint32_t rows) {
  return impl_->head(recorder, impl_->weights.mtp[index].head, first, rows);
}

Status Model::record_mtp_head(Recorder& recorder, uint32_t index, std::span<const uint32_t> rows) {
  return impl_->head(recorder, impl_->weights.mtp[index].head, rows);
}

}  // namespace hadal::model
