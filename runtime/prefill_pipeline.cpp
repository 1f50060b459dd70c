#include "hadal/runtime/prefill_pipeline.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal::runtime {

PrefillPipeline::PrefillPipeline(Device& device, model::Model& model, const KvCache& cache,
                                 Recorder recorder, Buffer inputs)
    : device_(&device),
      model_(&model),
      cache_(&cache),
      recorder_(std::move(recorder)),
      inputs_(std::move(inputs)) {}

Result<PrefillPipeline> PrefillPipeline::create(Device& device, model::Model& model,
                                                const KvCache& cache,
                                                const RecorderOptions& options) {
  HADAL_ASSIGN(Recorder recorder, Recorder::create(device, options));
  const uint64_t entries = 3ull * model.options().max_tokens + cache.view().pages;
  HADAL_ASSIGN(Buffer inputs, device.allocate(entries * 4, MemoryKind::kUpload));
  return PrefillPipeline(device, model, cache, std::move(recorder), std::move(inputs));
}

Status PrefillPipeline::check(uint32_t begin, std::span<const uint32_t> ids) const {
  const uint32_t context = model_->options().max_context;
  if (ids.size() > context || begin > context - ids.size()) {
    return {Errc::kInvalidArgument,
            fmt::format("prefill: positions must be below the context of {}, got {} tokens at {}",
                        context, ids.size(), begin)};
  }
  const uint32_t vocab = model_->config().vocab_size;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < vocab) continue;
    return {
        Errc::kInvalidArgument,
        fmt::format("prefill: token ids must be below {}, got {} at index {}", vocab, ids[i], i)};
  }
  return {};
}

Result<model::PrefillBatch> PrefillPipeline::upload(SequencePages& pages, uint32_t begin,
                                                    std::span<const uint32_t> ids) {
  const uint32_t stride = model_->options().max_tokens;
  HADAL_TRY(pages.reserve(begin + uint32_t(ids.size())));
  auto* data = reinterpret_cast<uint32_t*>(inputs_.mapped().data());
  for (uint32_t i = 0; i < ids.size(); ++i) {
    data[i] = ids[i];
    data[stride + i] = begin + i;
    data[2 * stride + i] = pages.slot(begin + i);
  }
  const auto table = pages.block_table();
  std::copy(table.begin(), table.end(), data + 3ull * stride);
  model::PrefillBatch batch;
  batch.tokens = uint32_t(ids.size());
  batch.begin = begin;
  batch.ids = inputs_.address();
  batch.positions = batch.ids + 4ull * stride;
  batch.slots = batch.positions + 4ull * stride;
  batch.block_table = batch.slots + 4ull * stride;
  batch.table_entries = uint32_t(table.size());
  return batch;
}

Status PrefillPipeline::run_chunk(const PrefillChunk& chunk,
                                  const std::function<Status(Recorder&)>& forward,
                                  const RecordHook& record, const DoneHook& done) {
  {
    const Trace::Span span(trace_, "record");
    HADAL_TRY(recorder_.reset());
    HADAL_TRY(forward(recorder_));
    if (record) HADAL_TRY(record(recorder_, chunk));
    HADAL_TRY(recorder_.end());
  }
  HADAL_TRY(run_traced(*device_, recorder_, trace_, TraceTrack::kPrefill));
  if (profile_) {
    HADAL_ASSIGN(const auto timings, recorder_.timings());
    profile_(timings);
  }
  return done ? done(chunk) : Status();
}

Status PrefillPipeline::run(SequencePages& pages, uint32_t begin, std::span<const uint32_t> ids,
                            const RecordHook& record, const DoneHook& done) {
  HADAL_TRY(check(begin, ids));
  const uint32_t step = model_->options().max_tokens, count = uint32_t(ids.size());
  for (uint32_t first = 0; first < count; first += step) {
    const PrefillChunk chunk{first, std::min(step, count - first), first + step >= count};
    HADAL_ASSIGN(const model::PrefillBatch batch,
                 upload(pages, begin + first, ids.subspan(first, chunk.tokens)));
    HADAL_TRY(run_chunk(
        chunk, [&](Recorder& recorder) { return model_->record(recorder, batch, cache_->view()); },
        record, done));
  }
  return {};
}

Status PrefillPipeline::run_mtp(uint32_t index, SequencePages& pages, uint32_t begin,
                                std::span<const uint32_t> next_ids, DeviceAddress previous_hidden,
                                const RecordHook& record, const DoneHook& done) {
  HADAL_TRY(check(begin, next_ids));
  const uint32_t step = model_->options().max_tokens, count = uint32_t(next_ids.size());
  const uint64_t row_bytes = 4ull * model_->row_stride();
  for (uint32_t first = 0; first < count; first += step) {
    const PrefillChunk chunk{first, std::min(step, count - first), first + step >= count};
    HADAL_ASSIGN(const model::PrefillBatch batch,
                 upload(pages, begin + first, next_ids.subspan(first, chunk.tokens)));
    HADAL_TRY(run_chunk(
        chunk,
        [&](Recorder& recorder) {
          return model_->record_mtp(recorder, index, batch, cache_->view(),
                                    previous_hidden + first * row_bytes);
        },
        record, done));
  }
  return {};
}

void PrefillPipeline::set_profile(std::function<void(const std::vector<DispatchTiming>&)> profile) {
  profile_ = std::move(profile);
}

}  // namespace hadal::runtime
