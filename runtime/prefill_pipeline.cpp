#include "hadal/runtime/prefill_pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace hadal::runtime {
namespace {

Status error(std::string text) {
  return {Errc::kInvalidArgument, "prefill: " + std::move(text)};
}

// Pages of the longest sequences: two of them may share pages, so the cache's number is no bound.
uint32_t table_entries(const model::Model& model, uint32_t max_sequences) {
  return max_sequences * ceil_div(model.options().max_context, kPageTokens);
}

}  // namespace

PrefillPipeline::PrefillPipeline(Device& device, const model::Model& model, const KvCache& cache,
                                 uint32_t max_sequences, model::Pass pass, Recorder recorder,
                                 Buffer inputs)
    : model_(&model),
      cache_(&cache),
      max_sequences_(max_sequences),
      max_entries_(table_entries(model, max_sequences)),
      pass_(std::move(pass)),
      recorder_(std::move(recorder)),
      inputs_(std::move(inputs)),
      submitter_(device) {}

Result<PrefillPipeline> PrefillPipeline::create(Device& device, const model::Model& model,
                                                const KvCache& cache,
                                                const RecorderOptions& options,
                                                uint32_t max_sequences) {
  if (max_sequences == 0 || max_sequences > model.options().max_tokens) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("prefill: max_sequences must be 1 to the model's max_tokens of {}, "
                              "got {}",
                              model.options().max_tokens, max_sequences));
  }
  HADAL_ASSIGN(model::Pass pass, model::Pass::create(model, model::prefill_pass(model.options())));
  HADAL_ASSIGN(Recorder recorder, Recorder::create(device, options));
  const uint64_t entries = table_entries(model, max_sequences);
  // A piece that does not end its sequence holds whole pages, and ends a window that has no room
  // for one more.
  const uint64_t window = model.options().expansion_rows - (kPageTokens - 1);
  const uint64_t pieces = max_sequences + std::min(entries, entries * kPageTokens / window + 1);
  const uint64_t bytes = (3ull * model.options().max_tokens + entries) * sizeof(uint32_t) +
                         pieces * sizeof(MlaPrefillSequence);
  HADAL_ASSIGN(Buffer inputs, device.allocate(bytes, MemoryKind::kUpload));
  return PrefillPipeline(device, model, cache, max_sequences, std::move(pass), std::move(recorder),
                         std::move(inputs));
}

Status PrefillPipeline::check(const PrefillPart& part) const {
  const uint32_t context = model_->options().max_context, vocab = model_->config().vocab_size;
  const std::span ids = part.ids;
  if (ids.size() > context || part.begin > context - ids.size()) {
    return error(fmt::format("positions must be below the context of {}, got {} tokens at {}",
                             context, ids.size(), part.begin));
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < vocab) continue;
    return error(fmt::format("token ids must be below {}, got {} at index {}", vocab, ids[i], i));
  }
  return {};
}

Status PrefillPipeline::check(std::span<const PrefillPart> parts) const {
  if (parts.empty() || parts.size() > max_sequences_) {
    return error(
        fmt::format("sequences of a pass must be 1 to {}, got {}", max_sequences_, parts.size()));
  }
  uint64_t tokens = 0;
  for (const PrefillPart& part : parts) {
    if (part.ids.empty()) return error("a sequence must have at least one token, got 0");
    HADAL_TRY(check(part));
    tokens += part.ids.size();
  }
  const uint32_t most = model_->options().max_tokens;
  if (tokens > most) {
    return error(fmt::format("tokens of a pass must be at most {}, got {}", most, tokens));
  }
  return {};
}

Result<model::PrefillBatch> PrefillPipeline::upload(std::span<const PrefillPart> parts) {
  const Trace::Span span(submitter_.trace(), "upload");
  const uint32_t stride = model_->options().max_tokens;
  auto* ids = reinterpret_cast<uint32_t*>(inputs_.mapped().data());
  uint32_t *positions = ids + stride, *slots = positions + stride, *tables = slots + stride;
  model::PrefillBatch batch;
  uint32_t entries = 0;
  for (const PrefillPart& part : parts) {
    const uint32_t count = uint32_t(part.ids.size()), end = part.begin + count;
    HADAL_TRY(part.pages->reserve(end));
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t row = batch.tokens + i;
      ids[row] = part.ids[i];
      positions[row] = part.begin + i;
      slots[row] = part.pages->slot(part.begin + i);
    }
    const auto table = part.pages->block_table().first(ceil_div(end, kPageTokens));
    std::copy(table.begin(), table.end(), tables + entries);
    batch.sequences.push_back({part.begin, count, entries, uint32_t(table.size())});
    entries += uint32_t(table.size()), batch.tokens += count;
  }
  batch.expansion =
      model::PrefillExpansion::plan(batch.sequences, model_->options().expansion_rows);
  const auto pieces = std::as_bytes(std::span(batch.expansion.pieces));
  std::memcpy(tables + max_entries_, pieces.data(), pieces.size());
  batch.ids = inputs_.address();
  batch.positions = batch.ids + 4ull * stride;
  batch.slots = batch.positions + 4ull * stride;
  batch.block_tables = batch.slots + 4ull * stride;
  batch.pieces = batch.block_tables + 4ull * max_entries_;
  return batch;
}

Status PrefillPipeline::record_pass(const model::PrefillBatch& batch, const Forward& forward,
                                    const PassHook& record) {
  const Trace::Span span(submitter_.trace(), "record");
  HADAL_TRY(recorder_.reset());
  HADAL_TRY(forward(recorder_, batch));
  if (record) HADAL_TRY(record(recorder_));
  return recorder_.end();
}

Status PrefillPipeline::begin_forward(std::span<const PrefillPart> parts, const Forward& forward,
                                      const PassHook& record) {
  HADAL_TRY(check(parts));
  HADAL_TRY(submitter_.wait());  // its pass reads what upload() writes
  HADAL_ASSIGN(const model::PrefillBatch batch, upload(parts));
  HADAL_TRY(record_pass(batch, forward, record));
  return submitter_.submit(recorder_);
}

Status PrefillPipeline::run_pass(std::span<const PrefillPart> parts, const PassHook& record) {
  HADAL_TRY(begin_pass(parts, record));
  return finish();
}

Status PrefillPipeline::run_layers(std::span<const PrefillPart> parts,
                                   std::span<const uint32_t> layers, const PassHook& record) {
  const auto forward = [&](Recorder& recorder, const model::PrefillBatch& batch) -> Status {
    HADAL_TRY(pass_.record_embedding(recorder, batch.ids, batch.tokens));
    for (const uint32_t layer : layers) {
      HADAL_TRY(pass_.record_layer(recorder, model_->weights().layers[layer], layer, batch,
                                   cache_->view()));
    }
    return pass_.record_final_norm(recorder, batch.tokens);
  };
  HADAL_TRY(begin_forward(parts, forward, record));
  return finish();
}

Status PrefillPipeline::begin_pass(std::span<const PrefillPart> parts, const PassHook& record) {
  const auto forward = [&](Recorder& recorder, const model::PrefillBatch& batch) {
    return pass_.record(recorder, batch, cache_->view());
  };
  return begin_forward(parts, forward, record);
}

Status PrefillPipeline::run_mtp_pass(uint32_t index, std::span<const PrefillPart> parts,
                                     DeviceAddress previous_hidden, const PassHook& record) {
  const auto forward = [&](Recorder& recorder, const model::PrefillBatch& batch) {
    return pass_.record_mtp(recorder, index, batch, cache_->view(), previous_hidden);
  };
  HADAL_TRY(begin_forward(parts, forward, record));
  return finish();
}

Status PrefillPipeline::run_chunks(const PrefillPart& part, const ChunkForward& forward,
                                   const RecordHook& record, const DoneHook& done) {
  HADAL_TRY(check(part));  // all of it before the first chunk runs
  const uint32_t step = model_->options().max_tokens, count = uint32_t(part.ids.size());
  for (uint32_t first = 0; first < count; first += step) {
    const PrefillChunk chunk{first, std::min(step, count - first), first + step >= count};
    const PrefillPart piece{part.pages, part.begin + first, part.ids.subspan(first, chunk.tokens)};
    HADAL_TRY(begin_forward(
        {&piece, 1},
        [&](Recorder& recorder, const model::PrefillBatch& batch) {
          return forward(recorder, batch, first);
        },
        [&](Recorder& recorder) { return record ? record(recorder, chunk) : Status(); }));
    HADAL_TRY(finish());
    if (done) HADAL_TRY(done(chunk));
  }
  return {};
}

Status PrefillPipeline::run(SequencePages& pages, uint32_t begin, std::span<const uint32_t> ids,
                            const RecordHook& record, const DoneHook& done) {
  const auto forward = [&](Recorder& recorder, const model::PrefillBatch& batch, uint32_t) {
    return pass_.record(recorder, batch, cache_->view());
  };
  return run_chunks({&pages, begin, ids}, forward, record, done);
}

Status PrefillPipeline::run_mtp(uint32_t index, SequencePages& pages, uint32_t begin,
                                std::span<const uint32_t> next_ids, DeviceAddress previous_hidden,
                                const RecordHook& record, const DoneHook& done) {
  const uint64_t row_bytes = 4ull * pass_.row_stride();
  const auto forward = [&](Recorder& recorder, const model::PrefillBatch& batch, uint32_t first) {
    return pass_.record_mtp(recorder, index, batch, cache_->view(),
                            previous_hidden + first * row_bytes);
  };
  return run_chunks({&pages, begin, next_ids}, forward, record, done);
}

}  // namespace hadal::runtime
