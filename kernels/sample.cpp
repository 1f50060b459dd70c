#include "hadal/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/sample.h"
#include "vk/pipeline.h"

namespace hadal {

static_assert(sizeof(SampleParams) == sizeof(layout::SampleParams) &&
                  offsetof(SampleParams, top_k) == offsetof(layout::SampleParams, top_k) &&
                  offsetof(SampleParams, top_p) == offsetof(layout::SampleParams, top_p) &&
                  offsetof(SampleParams, min_p) == offsetof(layout::SampleParams, min_p) &&
                  offsetof(SampleParams, seed_lo) == offsetof(layout::SampleParams, seed_lo) &&
                  offsetof(SampleParams, position) == offsetof(layout::SampleParams, position),
              "the host's SampleParams is the shader's");

SampleShape SampleShape::packed(uint32_t rows, uint32_t vocab) {
  SampleShape shape;
  shape.rows = rows, shape.vocab = vocab, shape.logits_stride = vocab;
  return shape;
}

std::string SampleConfig::to_string() const {
  return fmt::format("sample: one row per workgroup of {}", workgroup_size);
}

Status sample_check(const SampleShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "sample: " + std::move(text));
  };
  constexpr uint32_t kMaxVocab = 1u << 19;  // loop iterations, see sample_choose
  if (s.rows > caps.max_workgroup_count[0]) {
    return error(
        fmt::format("rows must be at most {}, got {}", caps.max_workgroup_count[0], s.rows));
  }
  if (s.vocab == 0 || s.vocab > kMaxVocab) {
    return error(fmt::format("vocab must be in 1..{}, got {}", kMaxVocab, s.vocab));
  }
  if (s.logits_stride < s.vocab) {
    return error(
        fmt::format("logits_stride must be at least vocab, got {} < {}", s.logits_stride, s.vocab));
  }
  return {};
}

SampleConfig sample_choose(const SampleShape& shape, const Caps& caps) {
  SampleConfig config;
  // A CPU driver runs a workgroup on one thread: more than one subgroup only where lavapipe before
  // Mesa 23, which ends a shader's loops after 65,535 iterations in total, needs short ones (about
  // 25 passes of vocab / workgroup_size). A GPU has few rows and wants all of its multiprocessor.
  const bool small = shape.vocab <= 4096;
  if (caps.is_cpu) {
    config.workgroup_size = small ? caps.subgroup_size : 256;
  } else {
    config.workgroup_size = small ? 256 : layout::kSampleMaxWorkgroup;
  }
  config.workgroup_size = std::min(config.workgroup_size, caps.max_workgroup_invocations);
  return config;
}

Sample::Sample(const Device& device, const vk::Pipeline* pipeline)
    : device_(&device), pipeline_(pipeline) {}

Result<Sample> Sample::create(Device& device, const SampleConfig& config) {
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      vk::Pipeline::get(device, "sample", config.workgroup_size, {}, sizeof(layout::SamplePush)));
  return Sample(device, pipeline);
}

Status Sample::record(Recorder& recorder, const SampleShape& shape, const SampleArgs& args) const {
  HADAL_TRY(sample_check(shape, device_->caps()));
  layout::SamplePush push{};
  push.logits = args.logits, push.params = args.params, push.ids = args.ids;
  push.vocab = shape.vocab, push.logits_stride = shape.logits_stride;

  const DeviceRange reads[] = {
      {args.logits, strided_bytes(shape.rows, shape.vocab, shape.logits_stride, 4)},
      {args.params, uint64_t{shape.rows} * sizeof(SampleParams)}};
  const DeviceRange ids{args.ids, uint64_t{shape.rows} * 4};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "sample";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.rows, 1, 1};
  dispatch.reads = reads;
  dispatch.writes = {&ids, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
