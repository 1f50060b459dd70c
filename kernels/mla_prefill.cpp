#include "hadal/mla_prefill.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "attention_paths.h"
#include "attention_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/types.h"
#include "kernel_util.h"
#include "layout/attention_lanes.h"
#include "layout/kv_page.h"
#include "layout/mla_prefill.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr std::string_view kCoopMatModule = "mla_prefill_coopmat",
                           kSharedModule = "mla_prefill_shared";
constexpr uint32_t kMaxStride = 1u << 24;  // the 64 rows of a block stay far from 32 bits

Status error(std::string text) {
  return {Errc::kInvalidArgument, "mla_prefill: " + std::move(text)};
}

static_assert(sizeof(MlaPrefillSequence) == sizeof(layout::MlaPrefillSequence));
static_assert(offsetof(MlaPrefillSequence, q_row) == offsetof(layout::MlaPrefillSequence, q_row));
static_assert(offsetof(MlaPrefillSequence, q_len) == offsetof(layout::MlaPrefillSequence, q_len));
static_assert(offsetof(MlaPrefillSequence, q_begin) ==
              offsetof(layout::MlaPrefillSequence, q_begin));
static_assert(offsetof(MlaPrefillSequence, kv_row) == offsetof(layout::MlaPrefillSequence, kv_row));
static_assert(offsetof(MlaPrefillSequence, kv_rows) ==
              offsetof(layout::MlaPrefillSequence, kv_rows));
static_assert(offsetof(MlaPrefillSequence, kv_begin) ==
              offsetof(layout::MlaPrefillSequence, kv_begin));
static_assert(MlaPrefillSequence::kFirst == layout::kMlaPrefillFlagFirst);
static_assert(MlaPrefillSequence::kLast == layout::kMlaPrefillFlagLast);

// Queries of the longest sequence.
uint32_t longest(const MlaPrefillShape& s) {
  return s.sequences ? s.max_q_len : s.q_len;
}
uint32_t sequence_count(const MlaPrefillShape& s) {
  return std::max(s.sequences, 1u);
}

bool heads_fit_lanes(const MlaPrefillShape& s) {
  constexpr uint32_t step = layout::kAttentionLanesStep;
  return s.nope % step == 0 && s.rope % step == 0 && s.v % step == 0 && s.nope + s.rope > 0;
}

// Length of a row of `heads` parts of `width`, `stride` apart.
uint64_t row_width(uint32_t heads, uint32_t width, uint32_t stride) {
  return heads ? uint64_t{heads - 1} * stride + width : 0;
}

}  // namespace

MlaPrefillShape MlaPrefillShape::packed(uint32_t q_begin, uint32_t q_len, uint32_t heads,
                                        uint32_t nope, uint32_t rope, uint32_t v) {
  MlaPrefillShape s;
  s.q_len = q_len, s.heads = heads, s.nope = nope, s.rope = rope, s.v = v;
  s.q_begin = q_begin, s.kv_begin = 0, s.kv_rows = q_begin + q_len;
  s.q_head_stride = nope + rope, s.q_row_stride = heads * s.q_head_stride;
  s.kv_row_stride = heads * (nope + v), s.k_pe_stride = rope;
  s.o_head_stride = v, s.o_row_stride = heads * v;
  return s;
}

std::string MlaPrefillConfig::to_string() const {
  std::string text;
  if (has_tile(path)) {
    text = fmt::format("{}, {}", attention_path_name(path), hadal::to_string(gpu_tile));
  } else if (lanes) {
    text = fmt::format("lanes, {} queries, {} keys x {} channels, runs of {}", tile,
                       lanes.tile_keys, lanes.tile_channels, lanes.run * layout::kKvPageTokens);
  } else {
    text = fmt::format("portable, {} queries, workgroup {}, {} value channels", tile,
                       workgroup_size, 2 * pairs * workgroup_size);
  }
  return fmt::format("mla_prefill: {}, {}{}", text, use_fma ? "fma" : "mul+add",
                     rejections_text(rejected));
}

Status mla_prefill_check(const MlaPrefillShape& s, const Caps& caps) {
  const uint64_t q_width = row_width(s.heads, s.nope + s.rope, s.q_head_stride);
  const uint64_t kv_width = uint64_t{s.heads} * (s.nope + s.v);
  const uint64_t o_width = row_width(s.heads, s.v, s.o_head_stride);
  const uint64_t widest = std::max({uint64_t{s.q_row_stride}, uint64_t{s.kv_row_stride},
                                    uint64_t{s.k_pe_stride}, uint64_t{s.o_row_stride}});
  if (s.nope % 4) return error(fmt::format("nope must be a multiple of 4, got {}", s.nope));
  if (s.rope % 4) return error(fmt::format("rope must be a multiple of 4, got {}", s.rope));
  if (s.v % 2) return error(fmt::format("v must be even, got {}", s.v));
  if (s.v > 1024) return error(fmt::format("v must be at most 1024, got {}", s.v));
  if ((s.q_row_stride | s.q_head_stride | s.kv_row_stride | s.k_pe_stride) % 2) {
    return error(fmt::format("strides of q, kv and k_pe must be even, got {}, {}, {}, {}",
                             s.q_row_stride, s.q_head_stride, s.kv_row_stride, s.k_pe_stride));
  }
  if (s.heads > 1 && s.q_head_stride < s.nope + s.rope) {
    return error(fmt::format("q_head_stride must be at least nope + rope, got {} < {}",
                             s.q_head_stride, s.nope + s.rope));
  }
  if (s.q_row_stride < q_width) {
    return error(
        fmt::format("q_row_stride must hold all heads, got {} < {}", s.q_row_stride, q_width));
  }
  if (s.kv_row_stride < kv_width) {
    return error(fmt::format("kv_row_stride must be at least heads * (nope + v), got {} < {}",
                             s.kv_row_stride, kv_width));
  }
  if (s.k_pe_stride < s.rope) {
    return error(
        fmt::format("k_pe_stride must be at least rope, got {} < {}", s.k_pe_stride, s.rope));
  }
  if (s.heads > 1 && s.o_head_stride < s.v) {
    return error(
        fmt::format("o_head_stride must be at least v, got {} < {}", s.o_head_stride, s.v));
  }
  if (s.o_row_stride < o_width) {
    return error(
        fmt::format("o_row_stride must hold all heads, got {} < {}", s.o_row_stride, o_width));
  }
  if (widest > kMaxStride) {
    return error(fmt::format("row strides must be at most {}, got {}", kMaxStride, widest));
  }
  if (s.sequences == 0) {
    if (s.kv_begin % layout::kKvPageTokens) {
      return error(fmt::format("kv_begin must be a multiple of 64, got {}", s.kv_begin));
    }
    if (!s.last && s.kv_rows % layout::kKvPageTokens) {
      return error(
          fmt::format("kv_rows must be a multiple of 64 before the last chunk, got {}", s.kv_rows));
    }
  } else if (s.max_q_len > s.q_len) {
    return error(fmt::format("max_q_len must be at most q_len, got {} > {}", s.max_q_len, s.q_len));
  }
  if (s.heads > caps.max_workgroup_count[0]) {
    return error(
        fmt::format("heads must be at most {}, got {}", caps.max_workgroup_count[0], s.heads));
  }
  if (longest(s) > caps.max_workgroup_count[1]) {  // a tile is at least one query
    return error(fmt::format("{} must be at most {}, got {}", s.sequences ? "max_q_len" : "q_len",
                             caps.max_workgroup_count[1], longest(s)));
  }
  if (s.sequences > caps.max_workgroup_count[2]) {
    return error(fmt::format("sequences must be at most {}, got {}", caps.max_workgroup_count[2],
                             s.sequences));
  }
  const uint64_t items = uint64_t{sequence_count(s)} * longest(s) * s.heads;
  if (items >= 1ull << 31) {
    return error(fmt::format(
        "heads * sequences * queries of the longest must be less than 2^31, got {}", items));
  }
  return {};
}

MlaPrefillConfig mla_prefill_choose(const MlaPrefillShape& shape, const Caps& caps,
                                    const AttentionPolicy& policy) {
  AttentionSizes sizes{kCoopMatModule, longest(shape), shape.v, attention_lanes_rejection(caps)};
  if (sizes.lanes.format.empty() && !heads_fit_lanes(shape)) {
    sizes.lanes.format = "nope, rope and v must be multiples of {}, got {}, {} and {}";
    sizes.lanes.numbers = {layout::kAttentionLanesStep, shape.nope, shape.rope, shape.v};
  }
  const AttentionPathChoice choice = choose_attention_path(sizes, caps, policy);
  MlaPrefillConfig config;
  config.path = choice.path, config.rejected = choice.rejected;
  config.use_fma = caps.use_fma;
  config.batch = shape.sequences != 0;
  if (has_tile(config.path)) {
    config.gpu_tile = choice.tile, config.tile = choice.tile.rows;
    config.workgroup_size = choice.tile.workgroup_size;
    return config;
  }
  // Even a few queries, in half-empty vectors, are faster so.
  if (config.path == AttentionPath::kLanes) {
    config.workgroup_size = caps.subgroup_size;
    config.lanes = attention_lanes(caps, longest(shape));
    config.tile = config.lanes.vectors * caps.subgroup_size;
    return config;
  }
  config.workgroup_size = attention_workgroup_size(caps, shape.v);
  config.pairs = std::max(1u, ceil_div(shape.v / 2, config.workgroup_size));
  // Every query of a tile shares the loads of keys and values; more than 128 accumulators per
  // invocation only spill (mla_prefill.md).
  config.tile = attention_tile(config.workgroup_size, config.pairs,
                               longest(shape) <= 4   ? 4
                               : longest(shape) <= 8 ? 8
                                                     : 16);
  return config;
}

uint64_t mla_prefill_scratch_bytes(const MlaPrefillShape& s) {
  const uint64_t items = uint64_t{sequence_count(s)} * longest(s) * s.heads;
  return attention_area_bytes(std::min<uint64_t>(items, kAttentionWorkers),
                              uint64_t{s.nope} + s.rope, s.v);
}

MlaPrefill::MlaPrefill(const Device& device, const vk::Pipeline* pipeline, MlaPrefillConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<MlaPrefill> MlaPrefill::create(Device& device, const MlaPrefillConfig& config) {
  if (has_tile(config.path)) {
    HADAL_ASSIGN(
        const vk::Pipeline* pipeline,
        attention_tile_pipeline(
            device, config.path,
            config.path == AttentionPath::kCoopMat ? kCoopMatModule : kSharedModule,
            config.gpu_tile, config.use_fma, {{layout::kMlaPrefillSpecBatch, config.batch}},
            sizeof(layout::MlaPrefillPush)));
    return MlaPrefill(device, pipeline, config);
  }
  if (config.lanes) {
    HADAL_ASSIGN(
        const vk::Pipeline* pipeline,
        vk::Pipeline::get(device, "mla_prefill_lanes", config.workgroup_size,
                          {{layout::kSpecUseFma, config.use_fma},
                           {layout::kMlaPrefillSpecBatch, config.batch},
                           {layout::kAttentionLanesSpecVectors, config.lanes.vectors},
                           {layout::kAttentionLanesSpecKeys, config.lanes.tile_keys},
                           {layout::kAttentionLanesSpecChannels, config.lanes.tile_channels},
                           {layout::kAttentionLanesSpecRun, config.lanes.run}},
                          sizeof(layout::MlaPrefillPush)));
    return MlaPrefill(device, pipeline, config);
  }
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(
                   device, "mla_prefill", config.workgroup_size,
                   {{layout::kSpecUseFma, config.use_fma},
                    {layout::kMlaPrefillSpecBatch, config.batch},
                    {layout::kMlaPrefillSpecTile, config.tile},
                    {layout::kMlaPrefillSpecKeys, layout::kKvPageTokens / config.workgroup_size},
                    {layout::kMlaPrefillSpecPairs, config.pairs}},
                   sizeof(layout::MlaPrefillPush)));
  return MlaPrefill(device, pipeline, config);
}

Status MlaPrefill::check_call(const MlaPrefillShape& s, const MlaPrefillArgs& args) const {
  HADAL_TRY(mla_prefill_check(s, device_->caps()));
  if ((args.q | args.kv | args.k_pe) % 8) {
    return error(fmt::format("q, kv and k_pe must be 8-byte aligned, got {:#x}, {:#x}, {:#x}",
                             args.q, args.kv, args.k_pe));
  }
  if (args.state == 0 && !s.sequences && !(s.first && s.last)) {
    return error("state must be given between chunks");
  }
  if ((s.sequences != 0) != config_.batch) return error("a batch must be the configuration's");
  if (s.sequences && args.sequences == 0) return error("sequences must be given in a batch");
  if (has_tile(config_.path)) {
    if (s.v > config_.gpu_tile.value_channels()) {
      return error(fmt::format("v must be at most the configuration's {}, got {}",
                               config_.gpu_tile.value_channels(), s.v));
    }
  } else if (config_.lanes) {
    if (!heads_fit_lanes(s)) {
      return error(fmt::format(
          "nope, rope and v must be the configuration's multiples of 8, got {}, {} and {}", s.nope,
          s.rope, s.v));
    }
    if (args.scratch == 0) {
      return error(fmt::format("scratch must be given, {} bytes", mla_prefill_scratch_bytes(s)));
    }
  } else if (s.v / 2 > config_.pairs * config_.workgroup_size) {
    return error(fmt::format("v must be at most the configuration's {}, got {}",
                             2 * config_.pairs * config_.workgroup_size, s.v));
  }
  return {};
}

Status MlaPrefill::record(Recorder& recorder, const MlaPrefillShape& s,
                          const MlaPrefillArgs& args) const {
  HADAL_TRY(check_call(s, args));
  if (longest(s) == 0 || s.heads == 0 || s.v == 0) return {};

  layout::MlaPrefillPush push{};
  push.q = args.q, push.kv = args.kv, push.k_pe = args.k_pe;
  push.o = args.o, push.state = args.state, push.scratch = args.scratch;
  push.sequences = s.sequences ? args.sequences : 0, push.sequence_count = sequence_count(s);
  push.max_q_len = longest(s);
  push.q_len = s.q_len, push.heads = s.heads, push.nope = s.nope, push.rope = s.rope, push.v = s.v;
  push.q_row_stride = s.q_row_stride, push.q_head_stride = s.q_head_stride;
  push.kv_row_stride = s.kv_row_stride, push.k_pe_stride = s.k_pe_stride;
  push.o_row_stride = s.o_row_stride, push.o_head_stride = s.o_head_stride;
  push.q_begin = s.q_begin, push.kv_begin = s.kv_begin, push.kv_rows = s.kv_rows;
  push.flags =
      (s.first ? layout::kMlaPrefillFlagFirst : 0) | (s.last ? layout::kMlaPrefillFlagLast : 0);
  push.scale = s.scale;
  // Some drivers load from an operand of no elements; it gets the address of another.
  if (s.rope == 0) push.k_pe = args.kv, push.k_pe_stride = 0;

  const uint64_t q_width = row_width(s.heads, s.nope + s.rope, s.q_head_stride);
  const uint64_t kv_width = uint64_t{s.heads} * (s.nope + s.v);
  const DeviceRange o{
      args.o, strided_bytes(s.q_len, row_width(s.heads, s.v, s.o_head_stride), s.o_row_stride, 4)};
  const DeviceRange state{args.state, uint64_t{s.q_len} * s.heads * 8};
  const bool first = s.first && !s.sequences, last = s.last && !s.sequences;
  const DeviceRange none{};
  const DeviceRange reads[] = {{args.q, strided_bytes(s.q_len, q_width, s.q_row_stride, 4)},
                               {args.kv, strided_bytes(s.kv_rows, kv_width, s.kv_row_stride, 4)},
                               {args.k_pe, strided_bytes(s.kv_rows, s.rope, s.k_pe_stride, 4)},
                               {args.sequences, uint64_t{s.sequences} * sizeof(MlaPrefillSequence)},
                               first ? none : o,
                               first || args.state == 0 ? none : state};
  const DeviceRange writes[] = {
      o, last || args.state == 0 ? none : state,
      config_.lanes ? DeviceRange{args.scratch, mla_prefill_scratch_bytes(s)} : none};
  const uint32_t tiles = ceil_div(longest(s), config_.tile);
  const uint64_t items = uint64_t{tiles} * s.heads * push.sequence_count;
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "mla_prefill";
  dispatch.push = push_bytes(push);
  dispatch.groups = {s.heads, tiles, push.sequence_count};
  if (config_.lanes) {
    dispatch.groups = {uint32_t(std::min<uint64_t>(items, kAttentionWorkers)), 1, 1};
  }
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
