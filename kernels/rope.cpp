#include "hadal/rope.h"

#include <fmt/format.h>

#include <cmath>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/types.h"
#include "kernel_util.h"
#include "layout/rope.h"
#include "vk/pipeline.h"

namespace hadal {

RopeShape RopeShape::packed(uint32_t rows, uint32_t heads, uint32_t dim, uint32_t max_position) {
  RopeShape shape;
  shape.rows = rows, shape.heads = heads, shape.dim = dim;
  shape.head_stride = dim, shape.row_stride = heads * dim;
  shape.max_position = max_position;
  return shape;
}

std::vector<float> rope_table(std::span<const double> inverse_frequencies, double amplitude,
                              uint32_t first_position, uint32_t positions) {
  std::vector<float> table;
  table.reserve(size_t(positions) * inverse_frequencies.size() * 2);
  for (uint32_t p = 0; p < positions; ++p) {
    for (double f : inverse_frequencies) {
      const double angle = (double(first_position) + double(p)) * f;
      table.push_back(float(amplitude * std::cos(angle)));
      table.push_back(float(amplitude * std::sin(angle)));
    }
  }
  return table;
}

std::string RopeConfig::to_string() const {
  return fmt::format("rope: workgroup {}, {} heads per workgroup, {}", workgroup_size,
                     heads_per_group, use_fma ? "fma" : "mul+add");
}

Status rope_check(const RopeShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "rope: " + std::move(text));
  };
  if (s.dim % 2) return error(fmt::format("dim must be even, got {}", s.dim));
  const uint64_t head_end = uint64_t{s.offset} + s.dim;
  if (s.heads > 1 && s.head_stride < head_end) {
    return error(fmt::format("head_stride must be at least offset + dim, got {} < {}",
                             s.head_stride, head_end));
  }
  const uint64_t width = s.heads ? uint64_t{s.heads - 1} * s.head_stride + head_end : 0;
  if (s.row_stride < width) {
    return error(fmt::format("row_stride must be at least a row's last channel + 1, got {} < {}",
                             s.row_stride, width));
  }
  if (width > (1u << 28)) {  // keeps byte offsets inside a row inside 32 bits
    return error(fmt::format("a row must be at most {} channels, got {}", 1u << 28, width));
  }
  if (s.rows > caps.max_workgroup_count[0]) {
    return error(
        fmt::format("rows must be at most {}, got {}", caps.max_workgroup_count[0], s.rows));
  }
  return {};
}

RopeConfig rope_choose(const RopeShape&, const Caps& caps) {
  RopeConfig config;
  // One subgroup on a CPU driver and 32 elsewhere: dim/2 is 32 in every model of the family.
  config.workgroup_size =
      caps.is_cpu ? caps.subgroup_size : std::min(32u, caps.max_workgroup_invocations);
  // A CPU worker takes a whole row of V3 in eight steps; a GPU wants many small workgroups.
  config.heads_per_group = caps.is_cpu ? 16 : 4;
  config.use_fma = caps.use_fma;
  return config;
}

Rope::Rope(const Device& device, const vk::Pipeline* pipeline, RopeConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<Rope> Rope::create(Device& device, const RopeConfig& config) {
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      vk::Pipeline::get(device, "rope", config.workgroup_size,
                        {{layout::kSpecUseFma, config.use_fma}}, sizeof(layout::RopePush)));
  return Rope(device, pipeline, config);
}

Status Rope::record(Recorder& recorder, const RopeShape& shape, const RopeArgs& args) const {
  HADAL_TRY(rope_check(shape, device_->caps()));
  if (shape.rows == 0 || shape.heads == 0 || shape.dim == 0) return {};

  layout::RopePush push{};
  push.x = args.x, push.positions = args.positions, push.table = args.table;
  push.heads = shape.heads, push.pairs = shape.dim / 2;
  push.row_stride = shape.row_stride, push.head_stride = shape.head_stride;
  push.offset = shape.offset;
  push.pair_step = shape.interleaved ? 2 : 1;
  push.partner = shape.interleaved ? 1 : shape.dim / 2;
  push.max_position = shape.max_position;
  push.heads_per_group = config_.heads_per_group;

  const uint64_t width = uint64_t{shape.heads - 1} * shape.head_stride + shape.dim;
  const DeviceRange x{args.x + uint64_t{shape.offset} * 4,
                      strided_bytes(shape.rows, width, shape.row_stride, 4)};
  const DeviceRange reads[] = {x,
                               {args.positions, uint64_t{shape.rows} * 4},
                               {args.table, uint64_t{shape.max_position} * shape.dim * 4}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "rope";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.rows, ceil_div(shape.heads, config_.heads_per_group), 1};
  dispatch.reads = reads;
  dispatch.writes = {&x, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
