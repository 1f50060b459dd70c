#include "hadal/rms_norm.h"

#include <fmt/format.h>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/rms_norm.h"
#include "vk/pipeline.h"

namespace hadal {

RmsNormShape RmsNormShape::packed(uint32_t rows, uint32_t n) {
  RmsNormShape shape;
  shape.rows = rows, shape.n = n;
  shape.x_stride = shape.residual_stride = shape.h_stride = shape.y_stride = n;
  shape.q_stride = round_up(n, 16);
  shape.scale_stride = ceil_div(n, kFp8BlockElems);
  return shape;
}

std::string RmsNormConfig::to_string() const {
  return fmt::format("rms_norm: workgroup {}, {}{}", workgroup_size, use_fma ? "fma" : "mul+add",
                     row_vectors ? ", vectors" : "");
}

Status rms_norm_check(const RmsNormShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "rms_norm: " + std::move(text));
  };
  const uint32_t groups = ceil_div(s.n, kFp8BlockElems);
  if (s.n > kMaxRowElems) {
    return error(fmt::format("n must be at most {}, got {}", kMaxRowElems, s.n));
  }
  if (s.x_stride < s.n) {
    return error(fmt::format("x_stride must be at least n, got {} < {}", s.x_stride, s.n));
  }
  if (s.add_residual && s.residual_stride < s.n) {
    return error(
        fmt::format("residual_stride must be at least n, got {} < {}", s.residual_stride, s.n));
  }
  if (s.write_h && s.h_stride < s.n) {
    return error(fmt::format("h_stride must be at least n, got {} < {}", s.h_stride, s.n));
  }
  if (s.write_y && s.y_stride < s.n) {
    return error(fmt::format("y_stride must be at least n, got {} < {}", s.y_stride, s.n));
  }
  if (s.quantize && s.q_stride < s.n) {
    return error(fmt::format("q_stride must be at least n, got {} < {}", s.q_stride, s.n));
  }
  if (s.quantize && s.q_stride % 16) {
    return error(fmt::format("q_stride must be a multiple of 16 bytes, got {}", s.q_stride));
  }
  if (s.quantize && s.scale_stride < groups) {
    return error(fmt::format("scale_stride must be at least ceil(n/128), got {} < {}",
                             s.scale_stride, groups));
  }
  if (!(s.eps >= 1e-12f && s.eps <= 1.0f)) {
    return error(fmt::format("eps must be from 1e-12 to 1, got {}", s.eps));
  }
  const uint32_t max_rows = caps.max_workgroup_count[0];
  if (s.rows > max_rows) {
    return error(fmt::format("rows must be at most {}, got {}", max_rows, s.rows));
  }
  return {};
}

RmsNormConfig rms_norm_choose(const RmsNormShape&, const Caps& caps) {
  return {row_workgroup_size(caps), caps.use_fma, row_vectors(caps)};
}

RmsNorm::RmsNorm(const Device& device, const vk::Pipeline* pipeline, RmsNormConfig config)
    : device_(&device), pipeline_(pipeline), config_(config) {}

Result<RmsNorm> RmsNorm::create(Device& device, const RmsNormConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, config.row_vectors ? "rms_norm_vectors" : "rms_norm",
                                 config.workgroup_size, {{layout::kSpecUseFma, config.use_fma}},
                                 sizeof(layout::RmsNormPush)));
  return RmsNorm(device, pipeline, config);
}

Status RmsNorm::record(Recorder& recorder, const RmsNormShape& shape,
                       const RmsNormArgs& args) const {
  HADAL_TRY(rms_norm_check(shape, device_->caps()));
  if ((args.x | args.residual | args.weight | args.h | args.y | args.scale) % 4) {
    return {Errc::kInvalidArgument, "rms_norm: addresses of floats must be 4-byte aligned"};
  }
  if (args.q % 16) {
    return {Errc::kInvalidArgument,
            fmt::format("rms_norm: q must be 16-byte aligned, got {:#x}", args.q)};
  }
  if (shape.rows == 0 || shape.n == 0) return {};

  layout::RmsNormPush push{};
  push.x = args.x, push.residual = args.residual, push.weight = args.weight;
  push.h = args.h, push.y = args.y, push.q = args.q, push.scale = args.scale;
  push.n = shape.n;
  push.x_stride = shape.x_stride, push.residual_stride = shape.residual_stride;
  push.h_stride = shape.h_stride, push.y_stride = shape.y_stride;
  push.q_stride = shape.q_stride, push.scale_stride = shape.scale_stride;
  push.flags = (shape.add_residual ? layout::kRmsNormFlagResidual : 0) |
               (shape.write_h ? layout::kRmsNormFlagWriteH : 0) |
               (shape.write_y ? layout::kRmsNormFlagWriteY : 0) |
               (shape.quantize ? layout::kRmsNormFlagQuantize : 0) |
               (shape.scale_format == ScaleFormat::kUe8m0 ? layout::kRmsNormFlagUe8m0 : 0);
  push.eps = shape.eps;
  push.inverse_n = float(1.0 / shape.n);

  const auto rows = [&](DeviceAddress address, bool used, uint32_t stride) {
    return DeviceRange{address, used ? strided_bytes(shape.rows, shape.n, stride, 4) : 0};
  };
  const uint32_t groups = shape.quantize ? ceil_div(shape.n, kFp8BlockElems) : 0;
  const DeviceRange reads[] = {rows(args.x, true, shape.x_stride),
                               rows(args.residual, shape.add_residual, shape.residual_stride),
                               {args.weight, uint64_t{shape.n} * 4}};
  const DeviceRange writes[] = {
      rows(args.h, shape.write_h, shape.h_stride),
      rows(args.y, shape.write_y, shape.y_stride),
      {args.q, strided_bytes(shape.rows, shape.quantize ? shape.n : 0, shape.q_stride, 1)},
      {args.scale, strided_bytes(shape.rows, groups, shape.scale_stride, 4)}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "rms_norm";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.rows, 1, 1};
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
