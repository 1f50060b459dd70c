#include "hadal/runtime/evaluator.h"

#include <fmt/format.h>

namespace hadal::runtime {

Evaluator::Evaluator(Device& device, model::Model& model, PagePool& pages, PrefillPipeline prefill,
                     DecodePipeline decode)
    : device_(&device),
      model_(&model),
      pages_(&pages),
      prefill_(std::move(prefill)),
      decode_(std::move(decode)) {}

Result<Evaluator> Evaluator::create(Device& device, model::Model& model, const KvCache& cache,
                                    PagePool& pages, const RecorderOptions& options) {
  if (model.options().max_logit_rows < model.options().max_tokens) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("evaluate: the model needs max_logit_rows of at least max_tokens, got "
                    "{} < {}",
                    model.options().max_logit_rows, model.options().max_tokens));
  }
  HADAL_ASSIGN(PrefillPipeline prefill, PrefillPipeline::create(device, model, cache, options));
  HADAL_ASSIGN(DecodePipeline decode, DecodePipeline::create(device, model, cache, 1, options));
  return Evaluator(device, model, pages, std::move(prefill), std::move(decode));
}

Status Evaluator::read_chunk(const model::Pass& pass, const PrefillChunk& chunk,
                             std::vector<float>& logits) {
  if (cancelled_ && cancelled_()) return {Errc::kCancelled, "evaluate: cancelled"};
  const size_t vocab = model_->config().vocab_size;
  const std::span<float> rows(logits.data() + chunk.first * vocab, chunk.tokens * vocab);
  return device_->download(pass.logits(), 0, std::as_writable_bytes(rows));
}

Status Evaluator::prefill_into(SequencePages& sequence, std::span<const uint32_t> ids,
                               std::vector<float>& logits, const Buffer* hidden_copy) {
  const uint64_t row_bytes = 4ull * prefill_.pass().row_stride();
  return prefill_.run(
      sequence, 0, ids,
      [&](Recorder& recorder, const PrefillChunk& chunk) -> Status {
        model::Pass& pass = prefill_.pass();
        HADAL_TRY(pass.record_head(recorder, 0, chunk.tokens));
        if (!hidden_copy) return {};
        const Buffer& work = pass.workspace();
        return recorder.copy(work, pass.hidden() - work.address(), *hidden_copy,
                             chunk.first * row_bytes, chunk.tokens * row_bytes);
      },
      [&](const PrefillChunk& chunk) { return read_chunk(prefill_.pass(), chunk, logits); });
}

Result<std::vector<float>> Evaluator::logits(std::span<const uint32_t> ids, EvaluationForm form) {
  std::vector<float> logits(ids.size() * model_->config().vocab_size);
  SequencePages sequence(*pages_);
  if (form == EvaluationForm::kPrefill) {
    HADAL_TRY(prefill_into(sequence, ids, logits, nullptr));
    return logits;
  }
  for (uint32_t i = 0; i < ids.size(); ++i) {
    const DecodeRow row{&sequence, ids[i], i};
    HADAL_TRY(decode_.step({&row, 1}, 0, [&](Recorder& recorder, const model::DecodeBatch&) {
      return decode_.pass().record_head(recorder, 0, 1);
    }));
    HADAL_TRY(read_chunk(decode_.pass(), {i, 1, false}, logits));
  }
  return logits;
}

Result<Evaluator::WithMtp> Evaluator::logits_with_mtp(std::span<const uint32_t> ids) {
  if (model_->weights().mtp.empty()) {
    return Status(Errc::kUnsupported,
                  "evaluate: the checkpoint has no MTP layer, or it was not loaded");
  }
  WithMtp result;
  const size_t vocab = model_->config().vocab_size;
  result.logits.resize(ids.size() * vocab);
  if (ids.empty()) return result;
  SequencePages sequence(*pages_);
  HADAL_ASSIGN(const Buffer hidden,
               device_->allocate(4ull * ids.size() * prefill_.pass().row_stride()));
  HADAL_TRY(prefill_into(sequence, ids, result.logits, &hidden));
  result.mtp_logits.resize((ids.size() - 1) * vocab);
  HADAL_TRY(prefill_.run_mtp(
      0, sequence, 0, ids.subspan(1), hidden.address(),
      [&](Recorder& recorder, const PrefillChunk& chunk) {
        return prefill_.pass().record_mtp_head(recorder, 0, 0, chunk.tokens);
      },
      [&](const PrefillChunk& chunk) {
        return read_chunk(prefill_.pass(), chunk, result.mtp_logits);
      }));
  return result;
}

}  // namespace hadal::runtime
