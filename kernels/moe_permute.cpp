#include "hadal/moe_permute.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/types.h"
#include "kernel_util.h"
#include "layout/moe_permute.h"
#include "layout/moe_tiles.h"
#include "vk/pipeline.h"

namespace hadal {

MoePermuteShape MoePermuteShape::packed(uint32_t tokens, uint32_t experts, uint32_t top_k,
                                        uint32_t tile_m) {
  MoePermuteShape shape;
  shape.tokens = tokens, shape.experts = experts, shape.top_k = top_k, shape.tile_m = tile_m;
  return shape;
}

std::string MoePermuteConfig::to_string() const {
  return fmt::format("moe_permute: one workgroup of {}{}", workgroup_size,
                     vectors ? ", vectors" : "");
}

uint32_t moe_permute_max_tiles(const MoePermuteShape& s) {
  // Every expert that has rows wastes at most tile_m - 1 rows of its last tile.
  const uint64_t rows = uint64_t{s.tokens} * s.top_k;
  const uint64_t segments = std::min<uint64_t>(rows, s.experts);
  return uint32_t((rows + segments * (s.tile_m - 1)) / s.tile_m);
}

Status moe_permute_check(const MoePermuteShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "moe_permute: " + std::move(text));
  };
  // One workgroup walks over all of them, and lavapipe before Mesa 23 ends any shader's loops after
  // 65,535 iterations in total, here four per entry and invocation.
  constexpr uint64_t kMaxEntries = 1u << 16;
  const uint64_t entries = uint64_t{s.tokens} * s.top_k;
  if (entries > kMaxEntries) {
    return error(fmt::format("tokens * top_k must be at most {}, got {}", kMaxEntries, entries));
  }
  if (s.experts > layout::kMoePermuteMaxExperts) {
    return error(fmt::format("experts must be at most {}, got {}", layout::kMoePermuteMaxExperts,
                             s.experts));
  }
  if (s.tile_m == 0 || s.tile_m > 65536) {
    return error(fmt::format("tile_m must be in 1..65536, got {}", s.tile_m));
  }
  if (s.command_count > layout::kMoePermuteMaxCommands) {
    return error(fmt::format("command_count must be at most {}, got {}",
                             layout::kMoePermuteMaxCommands, s.command_count));
  }
  for (uint32_t i = 0; i < s.command_count; ++i) {
    if (s.groups_x[i] > caps.max_workgroup_count[0]) {
      return error(fmt::format("groups_x must be at most {}, got {}", caps.max_workgroup_count[0],
                               s.groups_x[i]));
    }
  }
  const uint32_t tiles = moe_permute_max_tiles(s);
  if (s.command_count && tiles > caps.max_workgroup_count[1]) {
    return error(fmt::format("the tiles of any routing must be at most {}, got {}",
                             caps.max_workgroup_count[1], tiles));
  }
  return {};
}

MoePermuteConfig moe_permute_choose(const MoePermuteShape&, const Caps& caps) {
  MoePermuteConfig config;
  config.vectors = row_vectors(caps);
  // Every step compares each entry with the step's others: a CPU driver takes one subgroup, which
  // also needs no switching at barriers; a GPU enough to hide latency.
  const uint32_t wanted = caps.is_cpu ? caps.subgroup_size : 256;
  config.workgroup_size =
      std::min({wanted, caps.max_workgroup_invocations, uint32_t{layout::kMoePermuteMaxWorkgroup}});
  config.workgroup_size = round_up(config.workgroup_size, layout::kMoePermuteUnroll);
  return config;
}

MoePermute::MoePermute(const Device& device, const vk::Pipeline* pipeline)
    : device_(&device), pipeline_(pipeline) {}

Result<MoePermute> MoePermute::create(Device& device, const MoePermuteConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, config.vectors ? "moe_permute_vectors" : "moe_permute",
                                 config.workgroup_size, {}, sizeof(layout::MoePermutePush)));
  return MoePermute(device, pipeline);
}

Status MoePermute::record(Recorder& recorder, const MoePermuteShape& shape,
                          const MoePermuteArgs& args) const {
  HADAL_TRY(moe_permute_check(shape, device_->caps()));
  layout::MoePermutePush push{};
  push.indices = args.indices, push.row_token = args.row_token, push.row_of = args.row_of;
  push.segment_ends = args.segment_ends, push.tiles = args.tiles, push.commands = args.commands;
  push.entries = shape.tokens * shape.top_k;
  push.experts = shape.experts, push.top_k = shape.top_k, push.tile_m = shape.tile_m;
  push.command_count = shape.command_count;
  push.groups_x0 = shape.groups_x[0], push.groups_x1 = shape.groups_x[1];
  push.groups_x2 = shape.groups_x[2], push.groups_x3 = shape.groups_x[3];

  const uint64_t entry_bytes = uint64_t{push.entries} * 4;
  const DeviceRange indices{args.indices, entry_bytes};
  const DeviceRange writes[] = {
      {args.row_token, entry_bytes},
      {args.row_of, entry_bytes},
      {args.segment_ends, uint64_t{shape.experts} * 4},
      {args.tiles, uint64_t{moe_permute_max_tiles(shape)} * sizeof(layout::MoeTile)},
      {args.commands, uint64_t{shape.command_count} * sizeof(VkDispatchIndirectCommand)}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "moe_permute";
  dispatch.push = push_bytes(push);
  dispatch.groups = {1, 1, 1};
  dispatch.reads = {&indices, 1};
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

MoeCombineShape MoeCombineShape::packed(uint32_t tokens, uint32_t hidden, uint32_t top_k) {
  MoeCombineShape shape;
  shape.tokens = tokens, shape.hidden = hidden, shape.top_k = top_k;
  shape.x_stride = shape.shared_stride = shape.y_stride = hidden;
  return shape;
}

std::string MoeCombineConfig::to_string() const {
  return fmt::format("moe_combine: one token x {} columns, {}",
                     row_vectors ? layout::kFp8Block : workgroup_size * layout::kMoeCombineColumns,
                     use_fma ? "fma" : "mul+add");
}

Status moe_combine_check(const MoeCombineShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "moe_combine: " + std::move(text));
  };
  if (s.tokens > caps.max_workgroup_count[1]) {
    return error(
        fmt::format("tokens must be at most {}, got {}", caps.max_workgroup_count[1], s.tokens));
  }
  constexpr uint32_t kMaxTopK = 1024;
  if (s.top_k > kMaxTopK) {
    return error(fmt::format("top_k must be at most {}, got {}", kMaxTopK, s.top_k));
  }
  if (s.hidden > 1u << 24) {
    return error(fmt::format("hidden must be at most {}, got {}", 1u << 24, s.hidden));
  }
  if (s.x_stride < s.hidden) {
    return error(
        fmt::format("x_stride must be at least hidden, got {} < {}", s.x_stride, s.hidden));
  }
  if (s.has_shared && s.shared_stride < s.hidden) {
    return error(fmt::format("shared_stride must be at least hidden, got {} < {}", s.shared_stride,
                             s.hidden));
  }
  if (s.y_stride < s.hidden) {
    return error(
        fmt::format("y_stride must be at least hidden, got {} < {}", s.y_stride, s.hidden));
  }
  return {};
}

MoeCombineConfig moe_combine_choose(const MoeCombineShape&, const Caps& caps) {
  MoeCombineConfig config;
  config.workgroup_size = column_workgroup_size(caps);
  config.use_fma = caps.use_fma;
  config.row_vectors = row_vectors(caps);
  return config;
}

MoeCombine::MoeCombine(const Device& device, const vk::Pipeline* pipeline,
                       const MoeCombineConfig& config)
    : device_(&device), pipeline_(pipeline), config_(config) {}

Result<MoeCombine> MoeCombine::create(Device& device, const MoeCombineConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, config.row_vectors ? "moe_combine_vectors" : "moe_combine",
                                 config.workgroup_size, {{layout::kSpecUseFma, config.use_fma}},
                                 sizeof(layout::MoeCombinePush)));
  return MoeCombine(device, pipeline, config);
}

Status MoeCombine::record(Recorder& recorder, const MoeCombineShape& shape,
                          const MoeCombineArgs& args) const {
  HADAL_TRY(moe_combine_check(shape, device_->caps()));
  layout::MoeCombinePush push{};
  push.x = args.x, push.shared_ = args.shared, push.y = args.y;
  // Without slots x stands for both, which a CPU driver's loads touch even so.
  push.row_of = shape.top_k ? args.row_of : args.x;
  push.weights = shape.top_k ? args.weights : args.x;
  push.hidden = shape.hidden, push.top_k = shape.top_k;
  push.x_stride = shape.x_stride, push.shared_stride = shape.shared_stride;
  push.y_stride = shape.y_stride;
  if (shape.accumulate) push.flags |= layout::kMoeCombineFlagAccumulate;
  if (shape.has_shared) push.flags |= layout::kMoeCombineFlagShared;

  const DeviceRange x{args.x, strided_bytes(shape.tokens, shape.hidden, shape.x_stride, 4)};
  const uint64_t rows = uint64_t{shape.tokens} * shape.top_k;
  const DeviceRange reads[] = {
      {args.shared,
       shape.has_shared ? strided_bytes(shape.tokens, shape.hidden, shape.shared_stride, 4) : 0},
      {args.y, strided_bytes(shape.y_rows ? shape.y_rows : rows, shape.hidden, shape.y_stride, 4)},
      {args.row_of, rows * 4},
      {args.weights, rows * 4},
      {args.x, shape.accumulate ? x.bytes : 0}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "moe_combine";
  dispatch.push = push_bytes(push);
  const uint32_t columns =
      config_.row_vectors ? layout::kFp8Block : config_.workgroup_size * layout::kMoeCombineColumns;
  dispatch.groups = {ceil_div(shape.hidden, columns), shape.tokens, 1};
  dispatch.reads = reads;
  dispatch.writes = {&x, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
