#include "hadal/runtime/sampler.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

namespace hadal::runtime {

Status check_sampling(const SamplingOptions& o) {
  const auto error = [](const char* rule, float value) {
    return Status(Errc::kInvalidArgument, fmt::format("sampling: {}, got {}", rule, value));
  };
  if (!(o.temperature >= 0.0f) || std::isinf(o.temperature)) {
    return error("temperature must be at least 0", o.temperature);
  }
  if (!(o.top_p > 0.0f && o.top_p <= 1.0f)) {
    return error("top_p must be above 0 and at most 1", o.top_p);
  }
  if (!(o.min_p >= 0.0f && o.min_p <= 1.0f)) return error("min_p must be 0 to 1", o.min_p);
  return {};
}

Sampler::Sampler(Device& device, uint32_t vocab, Buffer params, Buffer ids)
    : device_(&device), vocab_(vocab), params_(std::move(params)), ids_(std::move(ids)) {}

Result<Sampler> Sampler::create(Device& device, uint32_t max_rows, uint32_t vocab) {
  HADAL_ASSIGN(Buffer params,
               device.allocate(uint64_t{max_rows} * sizeof(SampleParams), MemoryKind::kUpload));
  HADAL_ASSIGN(Buffer ids, device.allocate(uint64_t{max_rows} * 4, MemoryKind::kReadback));
  return Sampler(device, vocab, std::move(params), std::move(ids));
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
  std::memcpy(params_.mapped().data() + size_t{row} * sizeof params, &params, sizeof params);
}

Status Sampler::record(Recorder& recorder, DeviceAddress logits, uint32_t rows) {
  SampleShape shape = SampleShape::packed(rows, vocab_);
  HADAL_ASSIGN(const Sample kernel,
               Sample::create(*device_, sample_choose(shape, device_->caps())));
  SampleArgs args;
  args.logits = logits, args.params = params_.address(), args.ids = ids_.address();
  return kernel.record(recorder, shape, args);
}

uint32_t Sampler::id(uint32_t row) const {
  uint32_t id = 0;
  std::memcpy(&id, ids_.mapped().data() + size_t{row} * 4, 4);
  return id;
}

}  // namespace hadal::runtime
