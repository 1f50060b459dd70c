#include "hadal/swiglu.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "grouped_gemm_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/swiglu.h"
#include "vk/pipeline.h"

namespace hadal {

SwigluShape SwigluShape::packed(uint32_t rows, uint32_t n) {
  SwigluShape shape;
  shape.rows = rows, shape.n = n;
  shape.gate_stride = shape.up_stride = shape.y_stride = n;
  shape.q_stride = round_up(n, 16);
  shape.scale_stride = ceil_div(n, kFp8BlockElems);
  return shape;
}

std::string SwigluConfig::to_string() const {
  return fmt::format("swiglu: workgroup {}, {} groups each{}", workgroup_size, groups_per_workgroup,
                     row_vectors ? ", vectors" : "");
}

Status swiglu_check(const SwigluShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "swiglu: " + std::move(text));
  };
  const uint32_t groups = ceil_div(s.n, kFp8BlockElems);
  if (s.n > kMaxRowElems) {
    return error(fmt::format("n must be at most {}, got {}", kMaxRowElems, s.n));
  }
  if (s.gate_stride < s.n) {
    return error(fmt::format("gate_stride must be at least n, got {} < {}", s.gate_stride, s.n));
  }
  if (s.up_stride < s.n) {
    return error(fmt::format("up_stride must be at least n, got {} < {}", s.up_stride, s.n));
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
  const uint32_t max_rows = caps.max_workgroup_count[0];
  if (s.rows > max_rows) {
    return error(fmt::format("rows must be at most {}, got {}", max_rows, s.rows));
  }
  return {};
}

SwigluConfig swiglu_choose(const SwigluShape&, const Caps& caps) {
  if (row_vectors(caps)) return {caps.subgroup_size, caps.subgroup_size, true};
  return {row_workgroup_size(caps), groups_per_workgroup(caps), false};
}

Swiglu::Swiglu(const Device& device, const vk::Pipeline* pipeline, const vk::Pipeline* quantizing,
               SwigluConfig config)
    : device_(&device), pipeline_(pipeline), quantizing_(quantizing), config_(config) {}

Result<Swiglu> Swiglu::create(Device& device, const SwigluConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, config.row_vectors ? "swiglu_vectors" : "swiglu",
                                 config.workgroup_size, {}, sizeof(layout::SwigluPush)));
  if (!config.row_vectors) return Swiglu(device, pipeline, pipeline, config);
  HADAL_ASSIGN(const vk::Pipeline* quantizing,
               vk::Pipeline::get(device, "swiglu_pairs", config.workgroup_size, {},
                                 sizeof(layout::SwigluPush)));
  return Swiglu(device, pipeline, quantizing, config);
}

namespace {

Status check_addresses(const SwigluArgs& args) {
  if ((args.gate | args.up | args.y | args.scale) % 4) {
    return {Errc::kInvalidArgument, "swiglu: addresses of floats must be 4-byte aligned"};
  }
  if (args.q % 16) {
    return {Errc::kInvalidArgument,
            fmt::format("swiglu: q must be 16-byte aligned, got {:#x}", args.q)};
  }
  return {};
}

template <class Push>
Push make_push(const SwigluShape& shape, const SwigluArgs& args, const SwigluConfig& config) {
  Push push{};
  push.gate = args.gate, push.up = args.up;
  push.y = args.y, push.q = args.q, push.scale = args.scale;
  push.n = shape.n;
  push.gate_stride = shape.gate_stride, push.up_stride = shape.up_stride;
  push.y_stride = shape.y_stride;
  push.q_stride = shape.q_stride, push.scale_stride = shape.scale_stride;
  push.groups_per_workgroup = config.groups_per_workgroup;
  push.flags = (shape.write_y ? layout::kSwigluFlagWriteY : 0) |
               (shape.quantize ? layout::kSwigluFlagQuantize : 0) |
               (shape.scale_format == ScaleFormat::kUe8m0 ? layout::kSwigluFlagUe8m0 : 0);
  return push;
}

std::array<DeviceRange, 2> reads_of(const SwigluShape& shape, const SwigluArgs& args) {
  return {{{args.gate, strided_bytes(shape.rows, shape.n, shape.gate_stride, 4)},
           {args.up, strided_bytes(shape.rows, shape.n, shape.up_stride, 4)}}};
}

std::array<DeviceRange, 3> writes_of(const SwigluShape& shape, const SwigluArgs& args) {
  const uint32_t groups = ceil_div(shape.n, kFp8BlockElems);
  return {{{args.y, strided_bytes(shape.rows, shape.write_y ? shape.n : 0, shape.y_stride, 4)},
           {args.q, strided_bytes(shape.rows, shape.quantize ? shape.n : 0, shape.q_stride, 1)},
           {args.scale,
            strided_bytes(shape.rows, shape.quantize ? groups : 0, shape.scale_stride, 4)}}};
}

}  // namespace

Status Swiglu::record(Recorder& recorder, const SwigluShape& shape, const SwigluArgs& args) const {
  HADAL_TRY(swiglu_check(shape, device_->caps()));
  HADAL_TRY(check_addresses(args));
  if (shape.rows == 0 || shape.n == 0 || !(shape.write_y || shape.quantize)) return {};
  const auto push = make_push<layout::SwigluPush>(shape, args, config_);
  const auto reads = reads_of(shape, args);
  const auto writes = writes_of(shape, args);
  Recorder::Dispatch dispatch;
  dispatch.pipeline = shape.quantize ? quantizing_ : pipeline_;
  dispatch.label = "swiglu";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.rows, config_.runs(shape.n), 1};
  if (config_.row_vectors) std::swap(dispatch.groups[0], dispatch.groups[1]);
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

Status swiglu_tiles_check(const SwigluShape& shape, const Caps& caps) {
  SwigluShape any_rows = shape;
  any_rows.rows = std::min(shape.rows, 1u);
  return swiglu_check(any_rows, caps);
}

SwigluTiles::SwigluTiles(const Device& device, const vk::Pipeline* pipeline, SwigluConfig config)
    : device_(&device), pipeline_(pipeline), config_(config) {}

Result<SwigluTiles> SwigluTiles::create(Device& device, const SwigluConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "swiglu_tiles", config.workgroup_size, {},
                                 sizeof(layout::SwigluTilesPush)));
  return SwigluTiles(device, pipeline, config);
}

Status SwigluTiles::record(Recorder& recorder, const SwigluShape& shape,
                           const SwigluTilesArgs& args) const {
  HADAL_TRY(swiglu_tiles_check(shape, device_->caps()));
  HADAL_TRY(check_addresses(args.operands));
  if (shape.rows == 0 || shape.n == 0) return {};
  HADAL_TRY(check_tile_list("swiglu", args.tiles, args.indirect_buffer, args.indirect_offset));
  auto push = make_push<layout::SwigluTilesPush>(shape, args.operands, config_);
  push.tiles = args.tiles;
  const auto operands = reads_of(shape, args.operands);
  const DeviceRange reads[] = {
      operands[0], operands[1], {args.tiles, uint64_t{args.max_tiles} * sizeof(MoeTile)}};
  const auto writes = writes_of(shape, args.operands);
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "swiglu_tiles";
  dispatch.push = push_bytes(push);
  dispatch.indirect = {args.indirect_buffer->address() + args.indirect_offset, 12};
  dispatch.indirect_buffer = args.indirect_buffer;
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
