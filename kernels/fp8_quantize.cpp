#include "hadal/fp8_quantize.h"

#include <fmt/format.h>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/fp8_quantize.h"
#include "vk/pipeline.h"

namespace hadal {

Fp8QuantizeShape Fp8QuantizeShape::packed(uint32_t rows, uint32_t k, ScaleFormat scale_format) {
  Fp8QuantizeShape shape;
  shape.rows = rows, shape.k = k;
  shape.x_stride = k;
  shape.q_stride = round_up(k, 16);
  shape.scale_stride = ceil_div(k, kFp8BlockElems);
  shape.scale_format = scale_format;
  return shape;
}

std::string Fp8QuantizeConfig::to_string() const {
  return fmt::format("fp8_quantize: workgroup {}, {} groups each", workgroup_size,
                     groups_per_workgroup);
}

Status fp8_quantize_check(const Fp8QuantizeShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "fp8_quantize: " + std::move(text));
  };
  const uint32_t groups = ceil_div(s.k, kFp8BlockElems);
  if (s.k > kMaxRowElems)
    return error(fmt::format("k must be at most {}, got {}", kMaxRowElems, s.k));
  if (s.x_stride < s.k) {
    return error(fmt::format("x_stride must be at least k, got {} < {}", s.x_stride, s.k));
  }
  if (s.q_stride < s.k) {
    return error(fmt::format("q_stride must be at least k, got {} < {}", s.q_stride, s.k));
  }
  if (s.q_stride % 16) {
    return error(fmt::format("q_stride must be a multiple of 16 bytes, got {}", s.q_stride));
  }
  if (s.scale_stride < groups) {
    return error(fmt::format("scale_stride must be at least ceil(k/128), got {} < {}",
                             s.scale_stride, groups));
  }
  if (s.scale_type == ScaleType::kE8m0 && s.scale_format != ScaleFormat::kUe8m0) {
    return error("scale_type e8m0 needs scale_format ue8m0, got fp32");
  }
  const uint32_t max_rows = caps.max_workgroup_count[0];
  if (s.rows > max_rows) {
    return error(fmt::format("rows must be at most {}, got {}", max_rows, s.rows));
  }
  return {};
}

Fp8QuantizeConfig fp8_quantize_choose(const Fp8QuantizeShape&, const Caps& caps) {
  return {row_workgroup_size(caps), groups_per_workgroup(caps)};
}

Fp8Quantize::Fp8Quantize(const Device& device, const vk::Pipeline* pipeline,
                         Fp8QuantizeConfig config)
    : device_(&device), pipeline_(pipeline), config_(config) {}

Result<Fp8Quantize> Fp8Quantize::create(Device& device, const Fp8QuantizeConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "fp8_quantize", config.workgroup_size, {},
                                 sizeof(layout::Fp8QuantizePush)));
  return Fp8Quantize(device, pipeline, config);
}

Status Fp8Quantize::record(Recorder& recorder, const Fp8QuantizeShape& shape,
                           const Fp8QuantizeArgs& args) const {
  HADAL_TRY(fp8_quantize_check(shape, device_->caps()));
  const bool bytes = shape.scale_type == ScaleType::kE8m0;
  if (args.x % 4 || (!bytes && args.scale % 4) || args.q % 16) {
    return {
        Errc::kInvalidArgument,
        fmt::format("fp8_quantize: x and scale must be 4-byte and q 16-byte aligned, got {:#x}, "
                    "{:#x}, {:#x}",
                    args.x, args.scale, args.q)};
  }
  if (shape.rows == 0 || shape.k == 0) return {};

  layout::Fp8QuantizePush push{};
  push.x = args.x, push.q = args.q, push.scale = args.scale;
  push.k = shape.k;
  push.x_stride = shape.x_stride, push.q_stride = shape.q_stride;
  push.scale_stride = shape.scale_stride;
  push.groups_per_workgroup = config_.groups_per_workgroup;
  push.flags = (shape.scale_format == ScaleFormat::kUe8m0 ? layout::kFp8QuantizeFlagUe8m0 : 0) |
               (bytes ? layout::kFp8QuantizeFlagBytes : 0);

  const uint32_t groups = ceil_div(shape.k, kFp8BlockElems);
  const DeviceRange reads[] = {{args.x, strided_bytes(shape.rows, shape.k, shape.x_stride, 4)}};
  const DeviceRange writes[] = {
      {args.q, strided_bytes(shape.rows, shape.k, shape.q_stride, 1)},
      {args.scale, strided_bytes(shape.rows, groups, shape.scale_stride, bytes ? 1 : 4)}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "fp8_quantize";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.rows, ceil_div(groups, config_.groups_per_workgroup), 1};
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
