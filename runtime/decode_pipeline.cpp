#include "hadal/runtime/decode_pipeline.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal::runtime {

DecodePipeline::DecodePipeline(Device& device, model::Model& model, const KvCache& cache,
                               uint32_t max_rows, Recorder recorder, Buffer inputs)
    : device_(&device),
      model_(&model),
      cache_(&cache),
      max_rows_(max_rows),
      table_stride_(ceil_div(model.options().max_context, kPageTokens)),
      recorder_(std::move(recorder)),
      inputs_(std::move(inputs)) {}

Result<DecodePipeline> DecodePipeline::create(Device& device, model::Model& model,
                                              const KvCache& cache, uint32_t max_rows,
                                              const RecorderOptions& options) {
  if (max_rows == 0 || max_rows > model.options().max_decode_rows) {
    return Status(Errc::kInvalidArgument, fmt::format("decode: max_rows must be 1 to {}, got {}",
                                                      model.options().max_decode_rows, max_rows));
  }
  HADAL_ASSIGN(Recorder recorder, Recorder::create(device, options));
  const uint64_t table = ceil_div(model.options().max_context, kPageTokens);
  HADAL_ASSIGN(Buffer inputs, device.allocate(4 * max_rows * (4 + table), MemoryKind::kUpload));
  return DecodePipeline(device, model, cache, max_rows, std::move(recorder), std::move(inputs));
}

Result<model::DecodeBatch> DecodePipeline::upload(std::span<const DecodeRow> rows) {
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
  batch.ids = inputs_.address();
  batch.positions = batch.ids + 4ull * max_rows_;
  batch.slots = batch.positions + 4ull * max_rows_;
  batch.kv_lens = batch.slots + 4ull * max_rows_;
  batch.block_tables = batch.kv_lens + 4ull * max_rows_;
  batch.table_stride = table_stride_;
  return batch;
}

Status DecodePipeline::record_step(std::span<const DecodeRow> rows, const RecordHook& record) {
  const Trace::Span span(trace_, "record");
  HADAL_ASSIGN(const model::DecodeBatch batch, upload(rows));
  HADAL_TRY(recorder_.reset());
  HADAL_TRY(model_->record(recorder_, batch, cache_->view()));
  if (record) HADAL_TRY(record(recorder_, batch));
  return recorder_.end();
}

Status DecodePipeline::step(std::span<const DecodeRow> rows, const RecordHook& record) {
  if (rows.size() > max_rows_) {
    return {Errc::kInvalidArgument,
            fmt::format("decode: rows must be at most {}, got {}", max_rows_, rows.size())};
  }
  HADAL_TRY(record_step(rows, record));
  HADAL_TRY(run_traced(*device_, recorder_, trace_, TraceTrack::kDecode));
  if (profile_) {
    HADAL_ASSIGN(const auto timings, recorder_.timings());
    profile_(timings);
  }
  return {};
}

void DecodePipeline::set_profile(std::function<void(const std::vector<DispatchTiming>&)> profile) {
  profile_ = std::move(profile);
}

}  // namespace hadal::runtime
