#include "hadal/runtime/sampler.h"

#include <algorithm>
#include <cstring>

#include "hadal/types.h"

namespace hadal::runtime {
namespace {

template <class T>
void write(const Buffer& buffer, size_t index, std::span<const T> values) {
  if (values.empty()) return;
  std::memcpy(buffer.mapped().data() + index * sizeof(T), values.data(), values.size_bytes());
}

template <class T>
T read(const Buffer& buffer, size_t index) {
  T value;
  std::memcpy(&value, buffer.mapped().data() + index * sizeof(T), sizeof(T));
  return value;
}

// Allocates what has not been.
Status ensure(Device& device, Buffer& buffer, uint64_t bytes, MemoryKind kind) {
  if (buffer) return {};
  HADAL_ASSIGN(buffer, device.allocate(bytes, kind));
  return {};
}

}  // namespace

bool adjusts_logits(const SamplingOptions& o) {
  return o.repetition_penalty != 1.0f || o.presence_penalty != 0.0f ||
         o.frequency_penalty != 0.0f || !o.logit_bias.empty();
}

Sampler::Sampler(Device& device, uint32_t max_rows, uint32_t vocab, Buffer params, Buffer ids)
    : device_(&device),
      max_rows_(max_rows),
      vocab_(vocab),
      params_(std::move(params)),
      ids_(std::move(ids)),
      rows_(max_rows) {}

Result<Sampler> Sampler::create(Device& device, uint32_t max_rows, uint32_t vocab) {
  HADAL_ASSIGN(Buffer params,
               device.allocate(uint64_t{max_rows} * sizeof(SampleParams), MemoryKind::kUpload));
  HADAL_ASSIGN(Buffer ids, device.allocate(uint64_t{max_rows} * 4, MemoryKind::kReadback));
  return Sampler(device, max_rows, vocab, std::move(params), std::move(ids));
}

Status Sampler::warm_up(Device& device, uint32_t vocab) {
  const Caps& caps = device.caps();
  HADAL_TRY(Sample::create(device, sample_choose(SampleShape::packed(1, vocab), caps)).status());
  LogitAdjustShape adjust = LogitAdjustShape::packed(1, vocab);
  for (const bool in_place : {true, false}) {
    adjust.in_place = in_place;
    HADAL_TRY(LogitAdjust::create(device, logit_adjust_choose(adjust, caps)).status());
  }
  const TopLogprobsShape top = TopLogprobsShape::packed(1, vocab, 1);
  return TopLogprobs::create(device, top_logprobs_choose(top, caps)).status();
}

void Sampler::set_row(uint32_t row, const SamplingOptions& options, uint32_t position) {
  SampleParams params;
  params.temperature = options.temperature;
  params.top_k = options.top_k;
  params.top_p = options.top_p;
  params.min_p = options.min_p;
  params.seed_lo = uint32_t(options.seed);
  params.seed_hi = uint32_t(options.seed >> 32);
  params.position = position;
  write<SampleParams>(params_, row, {&params, 1});
  stale_ = stale_ || !prepared_.plain();
  rows_[row].adjust.reset(), rows_[row].top.reset();
}

void Sampler::adjust_row(uint32_t row, const SamplingOptions& options,
                         std::span<const LogitEdit> edits, std::span<const uint32_t> allowed) {
  LogitAdjustRow adjust;
  adjust.row = row;
  adjust.repetition = options.repetition_penalty;
  adjust.inverse_repetition = 1.0f / options.repetition_penalty;
  adjust.frequency = options.frequency_penalty;
  adjust.presence = options.presence_penalty;
  rows_[row].adjust = adjust;
  rows_[row].edits.assign(edits.begin(), edits.end());
  rows_[row].allowed.assign(allowed.begin(), allowed.end());
  stale_ = true;
}

void Sampler::want_logprobs(uint32_t row, uint32_t top) {
  rows_[row].top = std::min(top, vocab_);
  stale_ = true;
}

Status Sampler::allocate(uint32_t edits, bool masks) {
  const uint64_t rows = max_rows_;
  if (prepared_.adjusted) {
    HADAL_TRY(ensure(*device_, adjust_rows_, rows * sizeof(LogitAdjustRow), MemoryKind::kUpload));
  }
  if (edits > edits_capacity_) {
    const uint32_t capacity = std::max({edits, 2 * edits_capacity_, 1024u});
    HADAL_ASSIGN(edits_,
                 device_->allocate(uint64_t{capacity} * sizeof(LogitEdit), MemoryKind::kUpload));
    edits_capacity_ = capacity, ++edits_growths_;
  }
  if (masks) {
    HADAL_TRY(ensure(*device_, masks_, rows * ceil_div(vocab_, 32u) * 4, MemoryKind::kUpload));
  }
  if (prepared_.logprobs) {
    HADAL_TRY(ensure(*device_, logprob_rows_, rows * 4, MemoryKind::kUpload));
    HADAL_TRY(
        ensure(*device_, logprobs_, rows * 4 * (1 + 2 * kMaxTopLogprobs), MemoryKind::kReadback));
  }
  if (prepared_.copies()) {
    HADAL_TRY(ensure(*device_, adjusted_, rows * vocab_ * 4, MemoryKind::kDevice));
  }
  return {};
}

void Sampler::upload_adjustments(uint32_t rows) {
  const size_t words = ceil_div(vocab_, 32u);
  uint32_t listed = 0, edits = 0, masks = 0;
  for (uint32_t r = 0; r < rows; ++r) {
    const Row& row = rows_[r];
    if (!row.adjust && !prepared_.copies()) continue;
    LogitAdjustRow adjust = row.adjust.value_or(LogitAdjustRow{r});
    if (row.adjust) {
      adjust.edits_begin = edits;
      write<LogitEdit>(edits_, edits, row.edits);
      adjust.edits_end = edits += uint32_t(row.edits.size());
      if (!row.allowed.empty()) {
        adjust.mask = masks;
        write<uint32_t>(masks_, masks++ * words, row.allowed);
      }
    }
    write<LogitAdjustRow>(adjust_rows_, listed++, {&adjust, 1});
  }
  prepared_.adjusted = listed;
}

Result<uint64_t> Sampler::prepare(uint32_t rows) {
  prepared_ = {};
  prepared_.rows = rows;
  uint64_t edits = 0;
  bool masks = false;
  for (uint32_t r = 0; r < rows; ++r) {
    const Row& row = rows_[r];
    if (row.adjust) ++prepared_.adjusted, edits += row.edits.size(), masks |= !row.allowed.empty();
    if (row.top) ++prepared_.logprobs, prepared_.top = std::max(prepared_.top, *row.top);
  }
  stale_ = false;
  if (prepared_.plain()) return 0;
  if (Status status = allocate(uint32_t(edits), masks); !status.ok()) {
    prepared_ = {};
    stale_ = true;
    return status;
  }
  if (prepared_.adjusted) upload_adjustments(rows);
  for (uint32_t r = 0, place = 0; r < rows; ++r) {
    if (!rows_[r].top) continue;
    write<uint32_t>(logprob_rows_, place, {&r, 1});
    rows_[r].logprobs_place = place++;
  }
  // Masks and buffers come once and stay; the edits' buffer moves.
  return uint64_t{prepared_.adjusted} | uint64_t{prepared_.logprobs} << 20 |
         uint64_t{prepared_.top} << 40 | uint64_t{bool(masks_)} << 45 |
         uint64_t{edits_growths_} << 46;
}

Status Sampler::record_adjust(Recorder& recorder, DeviceAddress x, DeviceAddress y) const {
  LogitAdjustShape shape = LogitAdjustShape::packed(prepared_.rows, vocab_);
  shape.listed = prepared_.adjusted, shape.edits = edits_capacity_;
  shape.masks = masks_ ? max_rows_ : 0, shape.in_place = x == y;
  HADAL_ASSIGN(const LogitAdjust kernel,
               LogitAdjust::create(*device_, logit_adjust_choose(shape, device_->caps())));
  LogitAdjustArgs args;
  args.x = x, args.y = y, args.listed = adjust_rows_.address();
  args.edits = edits_.address(), args.masks = masks_.address();
  return kernel.record(recorder, shape, args);
}

Status Sampler::record_logprobs(Recorder& recorder, DeviceAddress logits) const {
  TopLogprobsShape shape = TopLogprobsShape::packed(prepared_.rows, vocab_, prepared_.top);
  shape.listed = prepared_.logprobs;
  HADAL_ASSIGN(const TopLogprobs kernel,
               TopLogprobs::create(*device_, top_logprobs_choose(shape, device_->caps())));
  TopLogprobsArgs args;
  args.logits = logits, args.listed = logprob_rows_.address(), args.ids = ids_.address();
  args.logprobs = logprobs_.address();
  args.top_ids = args.logprobs + 4ull * max_rows_;
  args.top_logprobs = args.top_ids + 4ull * max_rows_ * kMaxTopLogprobs;
  return kernel.record(recorder, shape, args);
}

Status Sampler::record(Recorder& recorder, DeviceAddress logits, uint32_t rows) {
  if (stale_ || (!prepared_.plain() && rows != prepared_.rows)) {
    return {Errc::kInvalidArgument, "sampler: rows must be prepared before they are recorded"};
  }
  const DeviceAddress drawn = prepared_.copies() ? adjusted_.address() : logits;
  if (prepared_.adjusted) {
    HADAL_TRY(record_adjust(recorder, logits, drawn));
    recorder.barrier();
  }
  const SampleShape shape = SampleShape::packed(rows, vocab_);
  HADAL_ASSIGN(const Sample kernel,
               Sample::create(*device_, sample_choose(shape, device_->caps())));
  SampleArgs args;
  args.logits = drawn, args.params = params_.address(), args.ids = ids_.address();
  HADAL_TRY(kernel.record(recorder, shape, args));
  if (prepared_.logprobs == 0) return {};
  recorder.barrier();
  return record_logprobs(recorder, logits);
}

uint32_t Sampler::id(uint32_t row) const {
  return read<uint32_t>(ids_, row);
}

TokenLogprobs Sampler::logprobs(uint32_t row) const {
  const size_t place = rows_[row].logprobs_place, first = max_rows_ + place * prepared_.top;
  TokenLogprobs result;
  result.chosen = read<float>(logprobs_, place);
  for (uint32_t n = 0; n < prepared_.top; ++n) {
    result.top.push_back({read<uint32_t>(logprobs_, first + n),
                          read<float>(logprobs_, first + n + max_rows_ * kMaxTopLogprobs)});
  }
  return result;
}

}  // namespace hadal::runtime
