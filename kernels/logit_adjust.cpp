#include "hadal/logit_adjust.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/logit_adjust.h"
#include "vk/pipeline.h"

namespace hadal {

static_assert(
    sizeof(LogitAdjustRow) == sizeof(layout::LogitAdjustRow) &&
        offsetof(LogitAdjustRow, mask) == offsetof(layout::LogitAdjustRow, mask) &&
        offsetof(LogitAdjustRow, edits_begin) == offsetof(layout::LogitAdjustRow, edits_begin) &&
        offsetof(LogitAdjustRow, edits_end) == offsetof(layout::LogitAdjustRow, edits_end) &&
        offsetof(LogitAdjustRow, repetition) == offsetof(layout::LogitAdjustRow, repetition) &&
        offsetof(LogitAdjustRow, inverse_repetition) ==
            offsetof(layout::LogitAdjustRow, inverse_repetition) &&
        offsetof(LogitAdjustRow, frequency) == offsetof(layout::LogitAdjustRow, frequency) &&
        offsetof(LogitAdjustRow, presence) == offsetof(layout::LogitAdjustRow, presence),
    "the host's LogitAdjustRow is the shader's");
static_assert(sizeof(LogitEdit) == sizeof(layout::LogitEdit) &&
                  offsetof(LogitEdit, prompt) == offsetof(layout::LogitEdit, prompt) &&
                  offsetof(LogitEdit, generated) == offsetof(layout::LogitEdit, generated) &&
                  offsetof(LogitEdit, bias) == offsetof(layout::LogitEdit, bias),
              "the host's LogitEdit is the shader's");

LogitAdjustShape LogitAdjustShape::packed(uint32_t rows, uint32_t vocab) {
  LogitAdjustShape shape;
  shape.rows = rows, shape.vocab = shape.x_stride = shape.y_stride = vocab;
  return shape;
}

std::string LogitAdjustConfig::to_string() const {
  return fmt::format("logit_adjust: one row per workgroup of {}, {}", workgroup_size,
                     in_place ? "in place" : "to another place");
}

Status logit_adjust_check(const LogitAdjustShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "logit_adjust: " + std::move(text));
  };
  constexpr uint32_t kMaxVocab = 1u << 19;  // as sample's
  if (s.vocab == 0 || s.vocab > kMaxVocab) {
    return error(fmt::format("vocab must be in 1..{}, got {}", kMaxVocab, s.vocab));
  }
  if (s.x_stride < s.vocab) {
    return error(fmt::format("x_stride must be at least vocab, got {} < {}", s.x_stride, s.vocab));
  }
  if (s.y_stride < s.vocab) {
    return error(fmt::format("y_stride must be at least vocab, got {} < {}", s.y_stride, s.vocab));
  }
  if (s.in_place && s.x_stride != s.y_stride) {
    return error(
        fmt::format("strides must be equal in place, got {} and {}", s.x_stride, s.y_stride));
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

LogitAdjustConfig logit_adjust_choose(const LogitAdjustShape& shape, const Caps& caps) {
  // As sample: a CPU driver runs a workgroup on one thread, and one older than Mesa 23 needs short
  // loops.
  const bool small = shape.vocab <= 4096;
  LogitAdjustConfig config;
  config.in_place = shape.in_place;
  config.workgroup_size = caps.is_cpu ? (small ? caps.subgroup_size : 256) : (small ? 256 : 1024);
  config.workgroup_size = std::min(config.workgroup_size, caps.max_workgroup_invocations);
  return config;
}

LogitAdjust::LogitAdjust(const Device& device, const vk::Pipeline* pipeline, bool in_place)
    : device_(&device), pipeline_(pipeline), in_place_(in_place) {}

Result<LogitAdjust> LogitAdjust::create(Device& device, const LogitAdjustConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "logit_adjust", config.workgroup_size,
                                 {{layout::kLogitAdjustSpecInPlace, config.in_place}},
                                 sizeof(layout::LogitAdjustPush)));
  return LogitAdjust(device, pipeline, config.in_place);
}

Status LogitAdjust::record(Recorder& recorder, const LogitAdjustShape& shape,
                           const LogitAdjustArgs& args) const {
  HADAL_TRY(logit_adjust_check(shape, device_->caps()));
  if (shape.in_place != in_place_ || shape.in_place != (args.x == args.y)) {
    return {Errc::kInvalidArgument,
            fmt::format("logit_adjust: in_place must be the config's and that of the addresses, "
                        "got {}, {} and {}",
                        shape.in_place, in_place_, args.x == args.y)};
  }
  layout::LogitAdjustPush push{};
  push.x = args.x, push.y = args.y, push.listed = args.listed;
  push.edits = args.edits, push.masks = args.masks;
  push.rows = shape.rows, push.vocab = shape.vocab;
  push.x_stride = shape.x_stride, push.y_stride = shape.y_stride;
  push.edit_count = shape.edits, push.mask_count = shape.masks;

  const DeviceRange reads[] = {
      {args.x, strided_bytes(shape.rows, shape.vocab, shape.x_stride, 4)},
      {args.listed, uint64_t{shape.listed} * sizeof(LogitAdjustRow)},
      {args.edits, uint64_t{shape.edits} * sizeof(LogitEdit)},
      {args.masks, uint64_t{shape.masks} * ceil_div(shape.vocab, 32u) * 4}};
  const DeviceRange y{args.y, strided_bytes(shape.rows, shape.vocab, shape.y_stride, 4)};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "logit_adjust";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.listed, 1, 1};
  dispatch.reads = reads;
  dispatch.writes = {&y, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
