#include "hadal/runtime/mtp_drafter.h"

#include <algorithm>
#include <numeric>

namespace hadal::runtime {

MtpDrafter::MtpDrafter(Device& device, const model::Model& model, const KvCache& cache,
                       uint32_t max_rows, Recorder recorder, Buffer inputs, Buffer gathered,
                       std::vector<Sampler> samplers)
    : model_(&model),
      cache_(&cache),
      max_rows_(max_rows),
      table_stride_(ceil_div(model.options().max_context, kPageTokens)),
      recorder_(std::move(recorder)),
      inputs_(std::move(inputs)),
      gathered_(std::move(gathered)),
      samplers_(std::move(samplers)),
      submitter_(device) {}

Result<MtpDrafter> MtpDrafter::create(Device& device, const model::Model& model,
                                      const model::Pass& decode, const KvCache& cache,
                                      uint32_t max_rows, uint32_t max_depth,
                                      const RecorderOptions& options) {
  if (model.weights().mtp.empty()) {
    return Status(Errc::kUnsupported,
                  "drafts: the checkpoint has no MTP layer to draft with, or it was not loaded");
  }
  HADAL_ASSIGN(Recorder recorder, Recorder::create(device, options));
  const uint64_t table = ceil_div(model.options().max_context, kPageTokens);
  HADAL_ASSIGN(Buffer inputs,
               device.allocate(4ull * max_rows * (3 * max_depth + 1 + table), MemoryKind::kUpload));
  HADAL_ASSIGN(Buffer gathered, device.allocate(4ull * max_rows * decode.row_stride()));
  std::vector<Sampler> samplers;
  for (uint32_t pass = 0; pass < max_depth; ++pass) {
    HADAL_ASSIGN(Sampler sampler, Sampler::create(device, max_rows, model.config().vocab_size));
    for (uint32_t row = 0; row < max_rows; ++row) sampler.set_row(row, {}, 0);  // greedy
    samplers.push_back(std::move(sampler));
  }
  return MtpDrafter(device, model, cache, max_rows, std::move(recorder), std::move(inputs),
                    std::move(gathered), std::move(samplers));
}

void MtpDrafter::order(std::span<const MtpSequence> sequences) {
  // The last pair's row is the sequence's last that is reserved for certain; a guess needs another.
  const auto depth = [&](uint32_t i) {
    const MtpSequence& s = sequences[i];
    const uint32_t room = s.pages->capacity() - s.cache_rows - uint32_t(s.next_ids.size());
    return std::min({s.depth, uint32_t(samplers_.size()), room + 1});
  };
  order_.clear(), depths_.clear();
  for (uint32_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].depth) order_.push_back(i);
  }
  std::stable_sort(order_.begin(), order_.end(),
                   [&](uint32_t a, uint32_t b) { return depth(a) > depth(b); });
  for (uint32_t i : order_) depths_.push_back(depth(i));
  max_kv_len_ = 0;
}

void MtpDrafter::upload_row(uint32_t pass, uint32_t row, const SequencePages& pages,
                            uint32_t position, uint32_t cache_row) {
  auto* data = reinterpret_cast<uint32_t*>(inputs_.mapped().data()) + 3ull * pass * max_rows_ + row;
  data[0] = position;
  data[max_rows_] = pages.slot(cache_row);
  data[2 * max_rows_] = cache_row + 1;
  max_kv_len_ = std::max(max_kv_len_, cache_row + 1);
}

model::DecodeBatch MtpDrafter::batch(uint32_t pass, uint32_t rows) const {
  model::DecodeBatch batch;
  batch.tokens = rows, batch.max_kv_len = max_kv_len_, batch.table_stride = table_stride_;
  batch.positions = inputs_.address() + 12ull * pass * max_rows_;
  batch.slots = batch.positions + 4ull * max_rows_;
  batch.kv_lens = batch.slots + 4ull * max_rows_;
  const DeviceAddress ids = inputs_.address() + 12ull * samplers_.size() * max_rows_;
  batch.ids = pass == 0 ? ids : samplers_[pass - 1].ids();
  batch.block_tables = ids + 4ull * max_rows_ + (pass ? 4ull * table_offset_ * table_stride_ : 0);
  return batch;
}

void MtpDrafter::upload_chain(std::span<const MtpSequence> sequences) {
  auto* tables = reinterpret_cast<uint32_t*>(inputs_.mapped().data()) +
                 (3ull * samplers_.size() + 1) * max_rows_;
  for (uint32_t row = 0; row < order_.size(); ++row) {
    const MtpSequence& s = sequences[order_[row]];
    const auto table = s.pages->block_table();
    std::copy(table.begin(), table.end(), tables + (table_offset_ + row) * table_stride_);
    const uint32_t pairs = uint32_t(s.next_ids.size());
    for (uint32_t pass = 1; pass < depths_[row]; ++pass) {
      upload_row(pass, row, *s.pages, s.begin + pairs - 1 + pass, s.cache_rows + pairs - 1 + pass);
    }
  }
}

std::vector<uint32_t> MtpDrafter::upload_first(std::span<const MtpSequence> sequences) {
  // Every pair but the drafted last ones, in order, then those: then the rows that have a head lie
  // together.
  std::vector<uint32_t> hidden;
  auto* data = reinterpret_cast<uint32_t*>(inputs_.mapped().data());
  uint32_t* ids = data + 3ull * samplers_.size() * max_rows_;
  uint32_t* tables = ids + max_rows_;
  const auto add = [&](const MtpSequence& s, uint32_t i) {
    const uint32_t row = uint32_t(hidden.size());
    ids[row] = s.next_ids[i];
    upload_row(0, row, *s.pages, s.begin + i, s.cache_rows + i);
    const auto table = s.pages->block_table();
    std::copy(table.begin(), table.end(), tables + row * table_stride_);
    hidden.push_back(s.hidden_row + i);
  };
  for (const MtpSequence& s : sequences) {
    const uint32_t pairs = uint32_t(s.next_ids.size());
    for (uint32_t i = 0; i + (s.depth ? 1 : 0) < pairs; ++i) add(s, i);
  }
  table_offset_ = uint32_t(hidden.size());
  for (uint32_t i : order_) add(sequences[i], uint32_t(sequences[i].next_ids.size()) - 1);
  return hidden;
}

Result<DeviceAddress> MtpDrafter::record_gather(Recorder& recorder, model::Pass& pass,
                                                std::span<const uint32_t> rows) {
  const uint64_t row_bytes = 4ull * pass.row_stride();
  const auto run_end = [&](size_t i) {
    size_t end = i + 1;
    while (end < rows.size() && rows[end] == rows[i] + (end - i)) ++end;
    return end;
  };
  if (run_end(0) == rows.size()) return pass.hidden() + rows[0] * row_bytes;
  const uint64_t base = pass.hidden() - pass.workspace().address();
  for (size_t i = 0, end = 0; i < rows.size(); i = end) {
    end = run_end(i);
    HADAL_TRY(recorder.copy(pass.workspace(), base + rows[i] * row_bytes, gathered_, i * row_bytes,
                            (end - i) * row_bytes));
  }
  recorder.barrier();
  return gathered_.address();
}

Status MtpDrafter::record_guess(Recorder& recorder, model::Pass& pass, uint32_t number,
                                std::span<const uint32_t> rows) {
  HADAL_TRY(pass.record_mtp_head(recorder, 0, rows));
  return samplers_[number].record(recorder, pass.logits().address(), uint32_t(rows.size()));
}

Status MtpDrafter::record_chain(Recorder& recorder, model::Pass& pass, DeviceAddress previous) {
  for (uint32_t number = 1; number < samplers_.size(); ++number) {
    const auto deep = [&](uint32_t depth) { return depth > number; };
    std::vector<uint32_t> rows(size_t(std::count_if(depths_.begin(), depths_.end(), deep)));
    if (rows.empty()) break;
    std::iota(rows.begin(), rows.end(), 0u);
    recorder.barrier();
    HADAL_TRY(pass.record_mtp(recorder, 0, batch(number, uint32_t(rows.size())), cache_->view(),
                              previous));
    previous = pass.hidden();
    HADAL_TRY(record_guess(recorder, pass, number, rows));
  }
  return {};
}

void MtpDrafter::read_drafts(size_t sequences) {
  drafts_.resize(std::max(drafts_.size(), sequences));
  for (auto& drafts : drafts_) drafts.clear();
  for (uint32_t row = 0; row < order_.size(); ++row) {
    for (uint32_t pass = 0; pass < depths_[row]; ++pass) {
      drafts_[order_[row]].push_back(samplers_[pass].id(row));
    }
  }
}

Status MtpDrafter::record_draft(model::Pass& pass, std::span<const MtpSequence> sequences) {
  const Trace::Span span(submitter_.trace(), "record");
  HADAL_TRY(recorder_.reset());
  const std::vector<uint32_t> hidden = upload_first(sequences);
  upload_chain(sequences);
  HADAL_ASSIGN(const DeviceAddress previous, record_gather(recorder_, pass, hidden));
  HADAL_TRY(
      pass.record_mtp(recorder_, 0, batch(0, uint32_t(hidden.size())), cache_->view(), previous));
  if (!order_.empty()) {
    std::vector<uint32_t> rows(order_.size());
    std::iota(rows.begin(), rows.end(), table_offset_);
    HADAL_TRY(record_guess(recorder_, pass, 0, rows));
    HADAL_TRY(
        record_chain(recorder_, pass, pass.hidden() + 4ull * table_offset_ * pass.row_stride()));
  }
  return recorder_.end();
}

Status MtpDrafter::draft(model::Pass& pass, std::span<const MtpSequence> sequences) {
  order(sequences);
  if (!sequences.empty()) {
    HADAL_TRY(record_draft(pass, sequences));
    HADAL_TRY(submitter_.submit(recorder_));
    HADAL_TRY(submitter_.wait());
  }
  read_drafts(sequences.size());
  return {};
}

Status MtpDrafter::prefill(PrefillPipeline& pipeline, model::Pass& decode,
                           std::span<const MtpSequence> sequences) {
  model::Pass& pass = pipeline.pass();
  order(sequences);
  table_offset_ = 0;
  upload_chain(sequences);
  std::vector<PrefillPart> parts;
  for (const MtpSequence& s : sequences) parts.push_back({s.pages, s.begin, s.next_ids});
  std::vector<uint32_t> rows;
  for (const uint32_t i : order_) {
    rows.push_back(sequences[i].hidden_row + uint32_t(sequences[i].next_ids.size()) - 1);
  }
  const auto guess = [&](Recorder& recorder) -> Status {
    if (rows.empty()) return {};
    HADAL_TRY(record_guess(recorder, pass, 0, rows));
    if (depths_[0] == 1) return {};
    HADAL_ASSIGN(const DeviceAddress previous, record_gather(recorder, pass, rows));
    return record_chain(recorder, decode, previous);
  };
  HADAL_TRY(pipeline.run_mtp_pass(0, parts, pass.hidden(), guess));
  read_drafts(sequences.size());
  return {};
}

}  // namespace hadal::runtime
