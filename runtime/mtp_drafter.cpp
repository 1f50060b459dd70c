#include "hadal/runtime/mtp_drafter.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace hadal::runtime {
namespace {

// Of up to a few requests each pattern of right and wrong guesses soon has its recording.
constexpr size_t kRecordings = 64;

}  // namespace

MtpDrafter::MtpDrafter(Device& device, const model::Model& model, const KvCache& cache,
                       uint32_t max_rows, const RecorderOptions& options, Buffer inputs,
                       Buffer gathered, std::vector<Sampler> samplers)
    : device_(&device),
      model_(&model),
      cache_(&cache),
      max_rows_(max_rows),
      table_stride_(ceil_div(model.options().max_context, kPageTokens)),
      inputs_(std::move(inputs)),
      gathered_(std::move(gathered)),
      samplers_(std::move(samplers)),
      recordings_(device, options, kRecordings),
      submitter_(device) {
  // The weights of a gather.
  const std::vector<float> ones(max_rows, 1.0f);
  std::memcpy(inputs_.mapped().data() + 4ull * max_rows * (3 * samplers_.size() + 2), ones.data(),
              4ull * max_rows);
}

Result<MtpDrafter> MtpDrafter::create(Device& device, const model::Model& model,
                                      const model::Pass& decode, const KvCache& cache,
                                      uint32_t max_rows, uint32_t max_depth,
                                      const RecorderOptions& options) {
  if (model.weights().mtp.empty()) {
    return Status(Errc::kUnsupported,
                  "drafts: the checkpoint has no MTP layer to draft with, or it was not loaded");
  }
  const uint64_t table = ceil_div(model.options().max_context, kPageTokens);
  HADAL_ASSIGN(Buffer inputs,
               device.allocate(4ull * max_rows * (3 * max_depth + 3 + table), MemoryKind::kUpload));
  HADAL_ASSIGN(Buffer gathered, device.allocate(4ull * max_rows * decode.row_stride()));
  std::vector<Sampler> samplers;
  for (uint32_t pass = 0; pass < max_depth; ++pass) {
    HADAL_ASSIGN(Sampler sampler, Sampler::create(device, max_rows, model.config().vocab_size));
    for (uint32_t row = 0; row < max_rows; ++row) sampler.set_row(row, {}, 0);  // greedy
    samplers.push_back(std::move(sampler));
  }
  return MtpDrafter(device, model, cache, max_rows, options, std::move(inputs), std::move(gathered),
                    std::move(samplers));
}

void MtpDrafter::set_trace(Trace* trace) {
  recordings_.set_trace(trace);
  submitter_.set_trace(trace, TraceTrack::kDrafts);
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
  batch.block_tables = ids + 12ull * max_rows_ + (pass ? 4ull * table_offset_ * table_stride_ : 0);
  return batch;
}

void MtpDrafter::upload_chain(std::span<const MtpSequence> sequences) {
  auto* tables = reinterpret_cast<uint32_t*>(inputs_.mapped().data()) +
                 (3ull * samplers_.size() + 3) * max_rows_;
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
  uint32_t* tables = ids + 3ull * max_rows_;
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

bool MtpDrafter::upload_gather(std::span<const uint32_t> rows) {
  bool in_place = true;
  for (uint32_t i = 0; i < rows.size(); ++i) in_place = in_place && rows[i] == i;
  auto* data = reinterpret_cast<uint32_t*>(inputs_.mapped().data());
  std::copy(rows.begin(), rows.end(), data + (3ull * samplers_.size() + 1) * max_rows_);
  return !in_place;
}

Result<MoeCombine> MtpDrafter::gather_kernel(const MoeCombineShape& shape) const {
  return MoeCombine::create(*device_, moe_combine_choose(shape, device_->caps()));
}

Status MtpDrafter::warm_up() const {
  return gather_kernel(MoeCombineShape::packed(1, model_->config().hidden_size, 1)).status();
}

Result<DeviceAddress> MtpDrafter::record_gather(Recorder& recorder, model::Pass& pass,
                                                uint32_t rows) {
  // Rows as a routing to one expert each, of weight 1, brings them together: exact.
  MoeCombineShape shape = MoeCombineShape::packed(rows, model_->config().hidden_size, 1);
  shape.x_stride = shape.y_stride = pass.row_stride(), shape.y_rows = pass.shape().rows();
  HADAL_ASSIGN(const MoeCombine kernel, gather_kernel(shape));
  MoeCombineArgs args;
  args.x = gathered_.address(), args.y = pass.hidden();
  args.row_of = inputs_.address() + 4ull * (3 * samplers_.size() + 1) * max_rows_;
  args.weights = args.row_of + 4ull * max_rows_;
  HADAL_TRY(kernel.record(recorder, shape, args));
  recorder.barrier();
  return gathered_.address();
}

Status MtpDrafter::record_guess(Recorder& recorder, model::Pass& pass, uint32_t number,
                                std::span<const uint32_t> rows) {
  HADAL_TRY(pass.record_mtp_head(recorder, 0, rows));
  return samplers_[number].record(recorder, pass.logits().address(), uint32_t(rows.size()));
}

Status MtpDrafter::record_chain(Recorder& recorder, model::Pass& pass, DeviceAddress previous) {
  const std::vector<uint32_t> counts = guesses();
  for (uint32_t number = 1; number < counts.size(); ++number) {
    std::vector<uint32_t> rows(counts[number]);
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

std::vector<uint32_t> MtpDrafter::guesses() const {
  std::vector<uint32_t> rows(depths_.empty() ? 0 : depths_[0]);
  for (const uint32_t depth : depths_) {
    for (uint32_t number = 0; number < depth; ++number) ++rows[number];
  }
  return rows;
}

Status MtpDrafter::record_draft(Recorder& recorder, model::Pass& pass, uint32_t count,
                                bool gather) {
  DeviceAddress previous = pass.hidden();
  if (gather) {
    HADAL_ASSIGN(previous, record_gather(recorder, pass, count));
  }
  HADAL_TRY(pass.record_mtp(recorder, 0, batch(0, count), cache_->view(), previous));
  if (order_.empty()) return {};
  std::vector<uint32_t> rows(order_.size());
  std::iota(rows.begin(), rows.end(), table_offset_);
  HADAL_TRY(record_guess(recorder, pass, 0, rows));
  return record_chain(recorder, pass, pass.hidden() + 4ull * table_offset_ * pass.row_stride());
}

Status MtpDrafter::draft(model::Pass& pass, std::span<const MtpSequence> sequences) {
  order(sequences);
  if (!sequences.empty()) {
    const std::vector<uint32_t> hidden = upload_first(sequences);
    upload_chain(sequences);
    const bool gather = upload_gather(hidden);
    const auto count = uint32_t(hidden.size());
    max_kv_len_ = recorded_kv_len(
        max_kv_len_, std::min(model_->options().max_context, cache_->view().pages * kPageTokens));
    HADAL_ASSIGN(
        Recorder * recorder,
        recordings_.get({count, max_kv_len_, pass.hidden(), gather, guesses()},
                        [&](Recorder& fresh) { return record_draft(fresh, pass, count, gather); }));
    HADAL_TRY(submitter_.submit(*recorder));
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
  const bool gather = upload_gather(rows);
  const auto guess = [&](Recorder& recorder) -> Status {
    if (rows.empty()) return {};
    HADAL_TRY(record_guess(recorder, pass, 0, rows));
    if (depths_[0] == 1) return {};
    DeviceAddress previous = pass.hidden();
    if (gather) {
      HADAL_ASSIGN(previous, record_gather(recorder, pass, uint32_t(rows.size())));
    }
    return record_chain(recorder, decode, previous);
  };
  HADAL_TRY(pipeline.run_mtp_pass(0, parts, pass.hidden(), guess));
  read_drafts(sequences.size());
  return {};
}

}  // namespace hadal::runtime
