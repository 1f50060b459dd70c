#include "hadal/moe_tiles.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/device.h"
#include "hadal/grouped_gemm.h"
#include "hadal/recorder.h"
#include "hadal/types.h"
#include "kernel_util.h"
#include "layout/moe_tiles.h"
#include "vk/pipeline.h"

namespace hadal {

MoeTilesShape MoeTilesShape::contiguous(uint32_t rows, uint32_t experts, uint32_t tile_m) {
  MoeTilesShape shape;
  shape.rows = rows, shape.experts = experts, shape.tile_m = tile_m;
  return shape;
}

MoeTilesShape MoeTilesShape::masked_groups(uint32_t experts, uint32_t m_max, uint32_t tile_m) {
  MoeTilesShape shape;
  shape.experts = experts, shape.m_max = m_max, shape.tile_m = tile_m;
  shape.rows = experts * m_max;
  shape.masked = true;
  return shape;
}

std::string MoeTilesConfig::to_string() const {
  return fmt::format("moe_tiles: {} tiles per workgroup of {}", layout::kMoeTilesPerWorkgroup,
                     workgroup_size);
}

uint32_t moe_tiles_max_tiles(const MoeTilesShape& s) {
  // Of the masked form ceil(m_max/tile_m) per expert would do; one formula is what the GEMMs know.
  return grouped_gemm_max_tiles(s.rows, s.experts, s.tile_m);
}

Status moe_tiles_check(const MoeTilesShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "moe_tiles: " + std::move(text));
  };
  constexpr uint32_t kMaxRows = 1u << 31;  // row + tile_m stays inside 32 bits
  if (s.experts > layout::kMoeTilesMaxExperts) {
    return error(
        fmt::format("experts must be at most {}, got {}", layout::kMoeTilesMaxExperts, s.experts));
  }
  if (s.rows > kMaxRows) {
    return error(fmt::format("rows must be at most {}, got {}", kMaxRows, s.rows));
  }
  if (s.masked && s.rows != uint64_t{s.experts} * s.m_max) {
    return error(fmt::format("rows must be experts * m_max, got {} for {} * {}", s.rows, s.experts,
                             s.m_max));
  }
  if (s.tile_m == 0 || s.tile_m > 65536) {
    return error(fmt::format("tile_m must be in 1..65536, got {}", s.tile_m));
  }
  if (s.command_count > layout::kMoeTilesMaxCommands) {
    return error(fmt::format("command_count must be at most {}, got {}",
                             layout::kMoeTilesMaxCommands, s.command_count));
  }
  for (uint32_t i = 0; i < s.command_count; ++i) {
    if (s.groups_x[i] > caps.max_workgroup_count[0]) {
      return error(fmt::format("groups_x must be at most {}, got {}", caps.max_workgroup_count[0],
                               s.groups_x[i]));
    }
  }
  const uint32_t tiles = moe_tiles_max_tiles(s);
  if (tiles > caps.max_workgroup_count[1]) {
    return error(fmt::format("the tiles of any routing must be at most {}, got {}",
                             caps.max_workgroup_count[1], tiles));
  }
  return {};
}

MoeTilesConfig moe_tiles_choose(const MoeTilesShape&, const Caps& caps) {
  MoeTilesConfig config;
  const uint32_t wanted = caps.is_cpu ? caps.subgroup_size : 256;
  config.workgroup_size = std::min(wanted, caps.max_workgroup_invocations);
  return config;
}

MoeTiles::MoeTiles(const Device& device, const vk::Pipeline* pipeline)
    : device_(&device), pipeline_(pipeline) {}

Result<MoeTiles> MoeTiles::create(Device& device, const MoeTilesConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "moe_tiles", config.workgroup_size, {},
                                 sizeof(layout::MoeTilesPush)));
  return MoeTiles(device, pipeline);
}

Status MoeTiles::record(Recorder& recorder, const MoeTilesShape& shape,
                        const MoeTilesArgs& args) const {
  HADAL_TRY(moe_tiles_check(shape, device_->caps()));
  const uint32_t max_tiles = moe_tiles_max_tiles(shape);
  layout::MoeTilesPush push{};
  push.segments = args.segments, push.tiles = args.tiles, push.commands = args.commands;
  // Without a row the counts do not matter, and m_max = 0 would read them as ends.
  push.experts = shape.rows ? shape.experts : 0;
  push.rows = shape.rows, push.m_max = shape.masked ? shape.m_max : 0;
  push.tile_m = shape.tile_m, push.max_tiles = max_tiles;
  push.command_count = shape.command_count;
  push.groups_x0 = shape.groups_x[0], push.groups_x1 = shape.groups_x[1];
  push.groups_x2 = shape.groups_x[2], push.groups_x3 = shape.groups_x[3];

  const DeviceRange segments{args.segments, uint64_t{push.experts} * 4};
  const DeviceRange writes[] = {
      {args.tiles, uint64_t{max_tiles} * sizeof(layout::MoeTile)},
      {args.commands, uint64_t{shape.command_count} * sizeof(VkDispatchIndirectCommand)}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "moe_tiles";
  dispatch.push = push_bytes(push);
  dispatch.groups = {std::max(ceil_div(max_tiles, layout::kMoeTilesPerWorkgroup), 1u), 1, 1};
  dispatch.reads = {&segments, 1};
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
