#include "hadal/top_logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/top_logprobs.h"
#include "vk/pipeline.h"

namespace hadal {

TopLogprobsShape TopLogprobsShape::packed(uint32_t rows, uint32_t vocab, uint32_t top) {
  TopLogprobsShape shape;
  shape.rows = shape.listed = rows, shape.vocab = shape.logits_stride = vocab, shape.top = top;
  return shape;
}

std::string TopLogprobsConfig::to_string() const {
  return fmt::format("top_logprobs: one row per workgroup of {}", workgroup_size);
}

Status top_logprobs_check(const TopLogprobsShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "top_logprobs: " + std::move(text));
  };
  constexpr uint32_t kMaxVocab = 1u << 19;  // as sample's
  if (s.vocab == 0 || s.vocab > kMaxVocab) {
    return error(fmt::format("vocab must be in 1..{}, got {}", kMaxVocab, s.vocab));
  }
  if (s.logits_stride < s.vocab) {
    return error(
        fmt::format("logits_stride must be at least vocab, got {} < {}", s.logits_stride, s.vocab));
  }
  if (s.top > kMaxTopLogprobs) {
    return error(fmt::format("top must be at most {}, got {}", kMaxTopLogprobs, s.top));
  }
  if (s.top > s.vocab) {
    return error(fmt::format("top must be at most vocab, got {} > {}", s.top, s.vocab));
  }
  if (s.listed > s.rows) {
    return error(fmt::format("listed must be at most rows, got {} > {}", s.listed, s.rows));
  }
  if (s.listed > caps.max_workgroup_count[0]) {
    return error(
        fmt::format("listed must be at most {}, got {}", caps.max_workgroup_count[0], s.listed));
  }
  return {};
}

TopLogprobsConfig top_logprobs_choose(const TopLogprobsShape& shape, const Caps& caps) {
  // As sample: a CPU driver runs a workgroup on one thread, and one older than Mesa 23 needs short
  // loops.
  const bool small = shape.vocab <= 4096;
  const uint32_t wanted =
      caps.is_cpu ? (small ? caps.subgroup_size : 256) : (small ? 256 : layout::kTopLogprobsChunks);
  return {std::bit_floor(std::min(wanted, caps.max_workgroup_invocations))};
}

TopLogprobs::TopLogprobs(const Device& device, const vk::Pipeline* pipeline)
    : device_(&device), pipeline_(pipeline) {}

Result<TopLogprobs> TopLogprobs::create(Device& device, const TopLogprobsConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "top_logprobs", config.workgroup_size, {},
                                 sizeof(layout::TopLogprobsPush)));
  return TopLogprobs(device, pipeline);
}

Status TopLogprobs::record(Recorder& recorder, const TopLogprobsShape& shape,
                           const TopLogprobsArgs& args) const {
  HADAL_TRY(top_logprobs_check(shape, device_->caps()));
  layout::TopLogprobsPush push{};
  push.logits = args.logits, push.listed = args.listed, push.ids = args.ids;
  push.logprobs = args.logprobs, push.top_ids = args.top_ids;
  push.top_logprobs = args.top_logprobs;
  push.rows = shape.rows, push.vocab = shape.vocab;
  push.logits_stride = shape.logits_stride, push.top = shape.top;

  const uint64_t listed = shape.listed;
  const DeviceRange reads[] = {
      {args.logits, strided_bytes(shape.rows, shape.vocab, shape.logits_stride, 4)},
      {args.listed, args.listed ? listed * 4 : 0},
      {args.ids, uint64_t{shape.rows} * 4}};
  const DeviceRange writes[] = {{args.logprobs, listed * 4},
                                {args.top_ids, listed * shape.top * 4},
                                {args.top_logprobs, listed * shape.top * 4}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "top_logprobs";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.listed, 1, 1};
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
