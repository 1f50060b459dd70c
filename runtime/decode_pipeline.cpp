#include "hadal/runtime/decode_pipeline.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal::runtime {
namespace {

// Row counts come and go with the requests, context lengths double: this holds 32 of the first
// times one or two of the second, and a few hundred bytes for each of a step's commands.
constexpr size_t kRecordings = 64;

}  // namespace

DecodePipeline::DecodePipeline(Device& device, const model::Model& model, const KvCache& cache,
                               uint32_t max_rows, const RecorderOptions& options, model::Pass pass,
                               Buffer inputs)
    : model_(&model),
      cache_(&cache),
      max_rows_(max_rows),
      table_stride_(ceil_div(model.options().max_context, kPageTokens)),
      pass_(std::move(pass)),
      inputs_(std::move(inputs)),
      recordings_(device, options, kRecordings),
      submitter_(device) {}

Result<DecodePipeline> DecodePipeline::create(Device& device, const model::Model& model,
                                              const KvCache& cache, uint32_t max_rows,
                                              const RecorderOptions& options) {
  if (max_rows == 0 || max_rows > model.options().max_decode_rows) {
    return Status(Errc::kInvalidArgument, fmt::format("decode: max_rows must be 1 to {}, got {}",
                                                      model.options().max_decode_rows, max_rows));
  }
  HADAL_ASSIGN(model::Pass pass, model::Pass::create(model, model::decode_pass(max_rows)));
  const uint64_t table = ceil_div(model.options().max_context, kPageTokens);
  HADAL_ASSIGN(Buffer inputs, device.allocate(4 * max_rows * (4 + table), MemoryKind::kUpload));
  return DecodePipeline(device, model, cache, max_rows, options, std::move(pass),
                        std::move(inputs));
}

void DecodePipeline::set_trace(Trace* trace) {
  recordings_.set_trace(trace);
  submitter_.set_trace(trace, TraceTrack::kDecode);
}

Result<model::DecodeBatch> DecodePipeline::upload(std::span<const DecodeRow> rows) {
  const Trace::Span span(submitter_.trace(), "upload");
  auto* data = reinterpret_cast<uint32_t*>(inputs_.mapped().data());
  uint32_t *ids = data, *positions = ids + max_rows_, *slots = positions + max_rows_,
           *kv_lens = slots + max_rows_, *tables = kv_lens + max_rows_;
  model::DecodeBatch batch;
  batch.tokens = uint32_t(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const DecodeRow& row = rows[i];
    if (row.id >= model_->config().vocab_size) {
      return Status(Errc::kInvalidArgument,
                    fmt::format("decode: token ids must be below {}, got {}",
                                model_->config().vocab_size, row.id));
    }
    if (row.position >= model_->options().max_context) {
      return Status(Errc::kInvalidArgument,
                    fmt::format("decode: positions must be below the context of {}, got {}",
                                model_->options().max_context, row.position));
    }
    HADAL_TRY(row.pages->reserve(row.position + 1));
    ids[i] = row.id;
    positions[i] = row.position;
    slots[i] = row.pages->slot(row.position);
    kv_lens[i] = row.position + 1;
    batch.max_kv_len = std::max(batch.max_kv_len, row.position + 1);
    const auto table = row.pages->block_table();
    std::copy(table.begin(), table.end(), tables + i * table_stride_);
  }
  batch.max_kv_len =
      recorded_kv_len(batch.max_kv_len,
                      std::min(model_->options().max_context, cache_->view().pages * kPageTokens));
  batch.ids = inputs_.address();
  batch.positions = batch.ids + 4ull * max_rows_;
  batch.slots = batch.positions + 4ull * max_rows_;
  batch.kv_lens = batch.slots + 4ull * max_rows_;
  batch.block_tables = batch.kv_lens + 4ull * max_rows_;
  batch.table_stride = table_stride_;
  return batch;
}

Status DecodePipeline::begin(std::span<const DecodeRow> rows, uint64_t key,
                             const RecordHook& record) {
  if (rows.size() > max_rows_) {
    return {Errc::kInvalidArgument,
            fmt::format("decode: rows must be at most {}, got {}", max_rows_, rows.size())};
  }
  HADAL_TRY(submitter_.wait());  // its step reads what upload() writes
  HADAL_ASSIGN(const model::DecodeBatch batch, upload(rows));
  HADAL_ASSIGN(Recorder * recorder,
               recordings_.get({batch.tokens, batch.max_kv_len, key, record != nullptr, {}},
                               [&](Recorder& fresh) -> Status {
                                 HADAL_TRY(pass_.record(fresh, batch, cache_->view()));
                                 return record ? record(fresh, batch) : Status();
                               }));
  return submitter_.submit(*recorder);
}

Status DecodePipeline::step(std::span<const DecodeRow> rows, uint64_t key,
                            const RecordHook& record) {
  HADAL_TRY(begin(rows, key, record));
  return finish();
}

Status DecodePipeline::step(std::span<const DecodeRow> rows) {
  return step(rows, 0, {});
}

}  // namespace hadal::runtime
