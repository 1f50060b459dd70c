#include "hadal/mla_decode.h"

#include <fmt/format.h>

#include <algorithm>

#include "attention_paths.h"
#include "attention_util.h"
#include "cache_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/attention_lanes.h"
#include "layout/kv_page.h"
#include "layout/mla_decode.h"
#include "vk/e4m3_table.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr std::string_view kCoopMatModule = "mla_decode_coopmat",
                           kSharedModule = "mla_decode_shared";
constexpr uint32_t kMaxLanesRope = 0xffff;  // MlaDecodeLanesPush::widths
constexpr uint32_t kMaxStride = 1u << 24;   // the 64 rows of a page stay far from 32 bits

Status error(std::string text) {
  return {Errc::kInvalidArgument, "mla_decode: " + std::move(text)};
}

// Length of a row of `heads` parts of `width`, `stride` apart.
uint64_t row_width(uint32_t heads, uint32_t width, uint32_t stride) {
  return heads ? uint64_t{heads - 1} * stride + width : 0;
}

uint32_t splits_of(const MlaDecodeShape& shape) {
  return ceil_div(shape.max_kv_len, layout::kMlaDecodeSplitKeys);
}

// Partial results per call: none when one split holds every key.
uint64_t partials_of(const MlaDecodeShape& shape) {
  const uint64_t splits = splits_of(shape);
  return splits <= 1 ? 0 : shape.tokens * splits * shape.heads;
}

bool sizes_fit_lanes(const MlaDecodeShape& s) {
  return (s.rank | s.rope) % layout::kAttentionLanesStep == 0 && s.rope <= kMaxLanesRope;
}

// What both forms of the push constants say alike.
template <class Push>
Push common_push(const MlaDecodeShape& s, const MlaDecodeArgs& args) {
  Push push{};
  push.q_latent = args.q_latent, push.q_pe = args.q_pe, push.cache = args.cache;
  push.block_tables = args.block_tables, push.kv_lens = args.kv_lens;
  push.o = args.o, push.lse = args.lse;
  push.heads_q_len = s.heads | s.q_len << 16;
  push.q_latent_row_stride = s.q_latent_row_stride;
  push.q_latent_head_stride = s.q_latent_head_stride;
  push.q_pe_row_stride = s.q_pe_row_stride, push.q_pe_head_stride = s.q_pe_head_stride;
  push.row_stride = s.row_stride, push.table_stride = s.table_stride;
  push.o_row_stride = s.o_row_stride, push.o_head_stride = s.o_head_stride;
  push.max_kv_len = s.max_kv_len, push.cache_rows = s.cache_rows;
  push.scale = s.scale;
  // Some drivers load from operands of no elements; they get the address of others.
  if (s.rope == 0) push.q_pe = args.q_latent, push.q_pe_row_stride = push.q_pe_head_stride = 0;
  if (s.max_kv_len == 0) push.block_tables = args.kv_lens, push.table_stride = 1;
  return push;
}

// What the combining dispatch and every path but the lanes are told.
layout::MlaDecodePush split_push(const MlaDecodeShape& s, const MlaDecodeArgs& args) {
  const uint64_t partials = partials_of(s);
  auto push = common_push<layout::MlaDecodePush>(s, args);
  push.partial_ml = partials ? args.scratch : 0;
  push.partial_o = partials ? args.scratch + partials * 8 : 0;
  push.rank = s.rank, push.rope = s.rope;
  return push;
}

layout::MlaDecodeLanesPush lanes_push(const MlaDecodeShape& s, const MlaDecodeArgs& args,
                                      DeviceAddress e4m3_table) {
  auto push = common_push<layout::MlaDecodeLanesPush>(s, args);
  push.e4m3_table = e4m3_table, push.scratch = args.scratch;
  push.tokens = s.tokens, push.widths = s.rank | s.rope << 16;
  return push;
}

// One operand [tokens, heads, width]: its strides hold what they must.
Status check_rows(const char* name, uint32_t heads, uint32_t width, const char* width_name,
                  uint32_t row_stride, uint32_t head_stride) {
  if (heads > 1 && head_stride < width) {
    return error(fmt::format("{}_head_stride must be at least {}, got {} < {}", name, width_name,
                             head_stride, width));
  }
  const uint64_t needed = row_width(heads, width, head_stride);
  if (row_stride < needed) {
    return error(
        fmt::format("{}_row_stride must hold all heads, got {} < {}", name, row_stride, needed));
  }
  return {};
}

}  // namespace

MlaDecodeShape MlaDecodeShape::packed(uint32_t tokens, uint32_t heads, uint32_t rank, uint32_t rope,
                                      uint32_t max_kv_len, uint32_t cache_rows,
                                      CacheFormat format) {
  MlaDecodeShape s;
  s.tokens = tokens, s.heads = heads, s.rank = rank, s.rope = rope;
  s.max_kv_len = max_kv_len, s.cache_rows = cache_rows;
  s.q_latent_head_stride = s.o_head_stride = rank;
  s.q_latent_row_stride = s.o_row_stride = heads * rank;
  s.q_pe_head_stride = rope, s.q_pe_row_stride = heads * rope;
  s.row_stride = uint32_t(cache_row_width(format, rank, rope)), s.cache_format = format;
  s.table_stride = ceil_div(max_kv_len, layout::kKvPageTokens);
  return s;
}

std::string MlaDecodeConfig::to_string() const {
  std::string text;
  if (has_tile(path)) {
    text = fmt::format("{}, {}", attention_path_name(path), hadal::to_string(gpu_tile));
  } else if (lanes) {
    text = fmt::format("lanes, {} heads, {} keys x {} channels, runs of {}", tile, lanes.tile_keys,
                       lanes.tile_channels, lanes.run * layout::kKvPageTokens);
  } else {
    text = fmt::format("portable, {} heads, workgroup {}, {} latent channels", tile, workgroup_size,
                       2 * pairs * workgroup_size);
  }
  return fmt::format("mla_decode: {}, cache {}, {}{}", text, cache_format_name(cache_format),
                     use_fma ? "fma" : "mul+add", rejections_text(rejected));
}

Status mla_decode_check(const MlaDecodeShape& s, const Caps& caps) {
  if (s.rank == 0 || s.rank % 4) {
    return error(fmt::format("rank must be a positive multiple of 4, got {}", s.rank));
  }
  if (s.rank > 1024) return error(fmt::format("rank must be at most 1024, got {}", s.rank));
  if (s.rope % 4) return error(fmt::format("rope must be a multiple of 4, got {}", s.rope));
  if (s.cache_format != CacheFormat::kFp8 && s.row_stride % 4) {
    return error(fmt::format("row_stride must be a multiple of 4, got {}", s.row_stride));
  }
  HADAL_TRY(cache_row_check("mla_decode", s.cache_format, s.rank, s.rope, s.row_stride));
  HADAL_TRY(check_rows("q_latent", s.heads, s.rank, "rank", s.q_latent_row_stride,
                       s.q_latent_head_stride));
  HADAL_TRY(check_rows("q_pe", s.heads, s.rope, "rope", s.q_pe_row_stride, s.q_pe_head_stride));
  HADAL_TRY(check_rows("o", s.heads, s.rank, "rank", s.o_row_stride, s.o_head_stride));
  if (s.row_stride > kMaxStride) {
    return error(fmt::format("row_stride must be at most {}, got {}", kMaxStride, s.row_stride));
  }
  const uint32_t pages = ceil_div(s.max_kv_len, layout::kKvPageTokens);
  if (s.table_stride < pages) {
    return error(fmt::format("table_stride must be at least ceil(max_kv_len / 64), got {} < {}",
                             s.table_stride, pages));
  }
  if (s.max_kv_len > s.cache_rows) {
    return error(fmt::format("max_kv_len must be at most cache_rows, got {} > {}", s.max_kv_len,
                             s.cache_rows));
  }
  if (splits_of(s) > caps.max_workgroup_count[1]) {
    return error(fmt::format("max_kv_len must be at most {}, got {}",
                             uint64_t{caps.max_workgroup_count[1]} * layout::kMlaDecodeSplitKeys,
                             s.max_kv_len));
  }
  // Heads and q_len share a word of the push constants.
  const uint32_t max_heads = std::min(caps.max_workgroup_count[0], 0xffffu);
  if (s.heads > max_heads) {
    return error(fmt::format("heads must be at most {}, got {}", max_heads, s.heads));
  }
  if (s.q_len == 0 || s.q_len > 0xffff || s.tokens % s.q_len) {
    return error(
        fmt::format("q_len must be 1 to 65535 and divide tokens, got {} of {}", s.q_len, s.tokens));
  }
  if (s.o_type != ElementType::kF32 && s.o_type != ElementType::kBf16) {
    return error("o_type must be f32 or bf16");
  }
  const uint32_t max_tokens = std::min(caps.max_workgroup_count[1], caps.max_workgroup_count[2]);
  if (s.tokens > max_tokens) {
    return error(fmt::format("tokens must be at most {}, got {}", max_tokens, s.tokens));
  }
  const uint64_t items = uint64_t{s.tokens} * std::max(splits_of(s), 1u) * s.heads;
  if (items >= 1ull << 31) {
    return error(
        fmt::format("tokens * heads * splits of 1,024 keys must be less than 2^31, got {}", items));
  }
  return {};
}

MlaDecodeConfig mla_decode_choose(const MlaDecodeShape& shape, const Caps& caps,
                                  const AttentionPolicy& policy) {
  AttentionSizes sizes{kCoopMatModule, shape.heads, shape.rank, attention_lanes_rejection(caps)};
  if (!sizes.lanes.format.empty()) {
  } else if (!sizes_fit_lanes(shape)) {
    sizes.lanes.format = "rank and rope must be multiples of {}, got {} and {}";
    sizes.lanes.numbers = {layout::kAttentionLanesStep, shape.rank, shape.rope};
  } else if (shape.cache_format == CacheFormat::kFp8 && !caps.device_constants) {
    sizes.lanes.format = "the host gave no device constants";
  } else if (4 * shape.heads <= caps.subgroup_size) {  // three of four lanes would idle
    sizes.lanes.format = "{} heads are too few for vectors of {}";
    sizes.lanes.numbers = {shape.heads, caps.subgroup_size};
  }
  const AttentionPathChoice choice = choose_attention_path(sizes, caps, policy);
  MlaDecodeConfig config;
  config.path = choice.path, config.rejected = choice.rejected;
  config.use_fma = caps.use_fma;
  config.cache_format = shape.cache_format, config.o_type = shape.o_type;
  config.combine_workgroup_size = column_workgroup_size(caps);
  config.combine_pairs = ceil_div(shape.rank / 2, config.combine_workgroup_size);
  config.combine_vectors = attention_lanes_run(caps) &&
                           config.combine_workgroup_size == caps.subgroup_size &&
                           shape.rank % (2 * config.combine_workgroup_size) == 0;
  if (has_tile(config.path)) {
    config.gpu_tile = choice.tile, config.tile = choice.tile.rows;
    config.workgroup_size = choice.tile.workgroup_size;
    return config;
  }
  if (config.path == AttentionPath::kLanes) {
    config.workgroup_size = caps.subgroup_size;
    config.lanes = attention_lanes(caps, shape.heads);
    config.tile = config.lanes.vectors * caps.subgroup_size;
    return config;
  }
  config.workgroup_size = attention_workgroup_size(caps, shape.rank);
  config.pairs = ceil_div(shape.rank / 2, config.workgroup_size);
  // The heads of a tile share every load of the cache.
  config.tile = attention_tile(config.workgroup_size, config.pairs,
                               shape.heads <= 4   ? 4
                               : shape.heads <= 8 ? 8
                                                  : 16);
  return config;
}

uint64_t mla_decode_scratch_bytes(const MlaDecodeShape& shape) {
  const uint64_t items = shape.tokens * std::max<uint64_t>(splits_of(shape), 1) * shape.heads;
  return partials_of(shape) * (shape.rank + 2) * 4 +
         attention_area_bytes(std::min<uint64_t>(items, kAttentionWorkers),
                              uint64_t{shape.rank} + shape.rope, shape.rank);
}

MlaDecode::MlaDecode(const Device& device, const vk::Pipeline* pipeline,
                     const vk::Pipeline* combine, MlaDecodeConfig config, DeviceAddress e4m3_table)
    : device_(&device),
      pipeline_(pipeline),
      combine_(combine),
      config_(std::move(config)),
      e4m3_table_(e4m3_table) {}

Result<MlaDecode> MlaDecode::create(Device& device, const MlaDecodeConfig& config) {
  const auto format = uint32_t(config.cache_format);
  const bool out_bf16 = config.o_type == ElementType::kBf16;
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      has_tile(config.path)
          ? attention_tile_pipeline(
                device, config.path,
                config.path == AttentionPath::kCoopMat ? kCoopMatModule : kSharedModule,
                config.gpu_tile, config.use_fma,
                {{layout::kMlaDecodeSpecFormat, format}, {layout::kMlaDecodeSpecOutBf16, out_bf16}},
                sizeof(layout::MlaDecodePush))
      : config.lanes
          ? vk::Pipeline::get(device, "mla_decode_lanes", config.workgroup_size,
                              {{layout::kSpecUseFma, config.use_fma},
                               {layout::kMlaDecodeSpecFormat, format},
                               {layout::kMlaDecodeSpecOutBf16, out_bf16},
                               {layout::kAttentionLanesSpecVectors, config.lanes.vectors},
                               {layout::kAttentionLanesSpecKeys, config.lanes.tile_keys},
                               {layout::kAttentionLanesSpecChannels, config.lanes.tile_channels},
                               {layout::kAttentionLanesSpecRun, config.lanes.run}},
                              sizeof(layout::MlaDecodeLanesPush))
          : vk::Pipeline::get(
                device, "mla_decode", config.workgroup_size,
                {{layout::kSpecUseFma, config.use_fma},
                 {layout::kMlaDecodeSpecTile, config.tile},
                 {layout::kMlaDecodeSpecKeys, layout::kKvPageTokens / config.workgroup_size},
                 {layout::kMlaDecodeSpecPairs, config.pairs},
                 {layout::kMlaDecodeSpecFormat, format},
                 {layout::kMlaDecodeSpecOutBf16, out_bf16}},
                sizeof(layout::MlaDecodePush)));
  HADAL_ASSIGN(const vk::Pipeline* combine,
               vk::Pipeline::get(device, "mla_decode_combine", config.combine_workgroup_size,
                                 {{layout::kSpecUseFma, config.use_fma},
                                  {layout::kMlaDecodeSpecPairs, config.combine_pairs},
                                  {layout::kMlaDecodeSpecVectors, config.combine_vectors},
                                  {layout::kMlaDecodeSpecOutBf16, out_bf16}},
                                 sizeof(layout::MlaDecodePush)));
  DeviceAddress table = 0;
  if (config.lanes && config.cache_format == CacheFormat::kFp8) {
    HADAL_ASSIGN(table, vk::e4m3_table(device));
    table += vk::kE4m3ValuesOffset;
  }
  return MlaDecode(device, pipeline, combine, config, table);
}

Status MlaDecode::check_call(const MlaDecodeShape& s, const MlaDecodeArgs& args) const {
  HADAL_TRY(mla_decode_check(s, device_->caps()));
  if (s.cache_format != config_.cache_format) {
    return error("cache_format must be the configuration's");
  }
  if (s.o_type != config_.o_type) return error("o_type must be the configuration's");
  if (args.o % element_bytes(s.o_type)) {
    return error(fmt::format("o must be aligned to its element, got {:#x}", args.o));
  }
  if (has_tile(config_.path)) {
    if (s.rank > config_.gpu_tile.value_channels()) {
      return error(fmt::format("rank must be at most the configuration's {}, got {}",
                               config_.gpu_tile.value_channels(), s.rank));
    }
  } else if (config_.lanes) {
    if (!sizes_fit_lanes(s)) {
      return error(
          fmt::format("rank and rope must be the configuration's multiples of 8, got {} and {}",
                      s.rank, s.rope));
    }
  } else if (s.rank / 2 > config_.pairs * config_.workgroup_size) {
    return error(fmt::format("rank must be at most the configuration's {}, got {}",
                             2 * config_.pairs * config_.workgroup_size, s.rank));
  }
  const uint32_t combined = 2 * config_.combine_pairs * config_.combine_workgroup_size;
  if (splits_of(s) > 1 && (config_.combine_vectors ? s.rank != combined : s.rank > combined)) {
    return error(fmt::format("rank must be the configuration's {} beyond 1,024 keys, got {}",
                             combined, s.rank));
  }
  if (args.cache % 8) {
    return error(fmt::format("cache must be 8-byte aligned, got {:#x}", args.cache));
  }
  HADAL_TRY(cache_address_check("mla_decode", s.cache_format, args.cache));
  if ((config_.lanes || splits_of(s) > 1) && args.scratch == 0) {
    return error(fmt::format("scratch must be given, {} bytes", mla_decode_scratch_bytes(s)));
  }
  return {};
}

Status MlaDecode::record(Recorder& recorder, const MlaDecodeShape& s,
                         const MlaDecodeArgs& args) const {
  HADAL_TRY(check_call(s, args));
  if (s.tokens == 0 || s.heads == 0) return {};

  const uint32_t splits = std::max(splits_of(s), 1u);
  const layout::MlaDecodePush push = split_push(s, args);
  const layout::MlaDecodeLanesPush lanes = lanes_push(s, args, e4m3_table_);
  const auto rows = [&](DeviceAddress address, uint32_t width, uint32_t row_stride,
                        uint32_t head_stride, uint32_t bytes) {
    return DeviceRange{address, strided_bytes(s.tokens, row_width(s.heads, width, head_stride),
                                              row_stride, bytes)};
  };
  const uint32_t sequences = s.tokens / s.q_len;
  const DeviceRange kv_lens{args.kv_lens, uint64_t{sequences} * 4};
  const DeviceRange scratch{args.scratch, args.scratch ? mla_decode_scratch_bytes(s) : 0};
  const DeviceRange reads[] = {
      rows(args.q_latent, s.rank, s.q_latent_row_stride, s.q_latent_head_stride, 4),
      rows(args.q_pe, s.rope, s.q_pe_row_stride, s.q_pe_head_stride, 4),
      cache_range(args.cache, s.cache_format, s.cache_rows, s.rank, s.rope, s.row_stride),
      {args.block_tables,
       strided_bytes(sequences, ceil_div(s.max_kv_len, layout::kKvPageTokens), s.table_stride, 4)},
      kv_lens};
  const DeviceRange writes[] = {
      rows(args.o, s.rank, s.o_row_stride, s.o_head_stride, element_bytes(s.o_type)),
      {args.lse, args.lse ? uint64_t{s.tokens} * s.heads * 4 : 0},
      scratch};
  const std::span<const DeviceRange> results(writes, 2);
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "mla_decode";
  const uint32_t groups = ceil_div(s.heads, config_.tile);
  if (config_.lanes) {
    const uint64_t items = uint64_t{groups} * splits * s.tokens;
    dispatch.push = push_bytes(lanes);
    dispatch.groups = {uint32_t(std::min<uint64_t>(items, kAttentionWorkers)), 1, 1};
  } else {
    dispatch.push = push_bytes(push);
    dispatch.groups = {groups, splits, s.tokens};
  }
  dispatch.reads = reads;
  dispatch.writes = writes;
  if (splits > 1) dispatch.writes = {&scratch, 1};
  HADAL_TRY(recorder.dispatch(dispatch));
  if (splits == 1) return {};

  recorder.barrier();
  const DeviceRange combine_reads[] = {scratch, kv_lens};
  dispatch.pipeline = combine_;
  dispatch.label = "mla_decode_combine";
  dispatch.push = push_bytes(push);
  dispatch.groups = {s.heads, s.tokens, 1};
  dispatch.reads = combine_reads;
  dispatch.writes = results;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
