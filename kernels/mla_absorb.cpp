#include "hadal/mla_absorb.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/mla_absorb.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr uint32_t kSmallestTileM = 2;  // that the tiles of many tokens have

uint32_t weight_bytes(MlaAbsorbWeight type) {
  return type == MlaAbsorbWeight::kE4m3 ? 1 : 2;
}

// Outputs per invocation of a tile that is one wide.
uint32_t lane_columns(const MlaAbsorbConfig& config) {
  if (config.direction == MlaAbsorbDirection::kValue) return 1;
  if (config.path == GemmPath::kScalar) return 4 / weight_bytes(config.weight_type);
  return layout::kMlaAbsorbColumns;
}

// Elements from a token's first to the end of its last head.
uint64_t token_span(uint32_t heads, uint32_t head_stride, uint32_t width) {
  return strided_bytes(heads, width, head_stride, 1);
}

// The scalar path (mla_absorb_scalar.comp), where the device has scalar uniforms and the problem
// fills a vector and a turn.
void try_scalar_path(const MlaAbsorbShape& s, const Caps& caps, MlaAbsorbConfig& config) {
  if (!caps.scalar_uniforms) return;
  MlaAbsorbConfig scalar = config;
  scalar.path = GemmPath::kScalar;
  scalar.workgroup_size = caps.subgroup_size;
  const bool query = s.direction == MlaAbsorbDirection::kQuery;
  const uint32_t outputs = query ? round_up(s.rank, 4) : s.v;
  const uint32_t vectors = outputs / (lane_columns(scalar) * scalar.workgroup_size);
  if (vectors == 0 ||
      s.in_width() < (query ? layout::kMlaAbsorbTurnRows : layout::kMlaAbsorbTurnColumns))
    return;
  // Tiles by measurement (mla_absorb.md).
  const bool e4m3 = s.weight_type == MlaAbsorbWeight::kE4m3;
  const uint32_t largest = !query ? 8 : e4m3 ? 4 : 2;
  scalar.tile_m = std::min(std::bit_ceil(std::max(s.tokens, 1u)), largest);
  const uint32_t widest =
      query ? (scalar.tile_m <= 2 ? 4 : 2) : (e4m3 || scalar.tile_m <= 2 ? 2 : 1);
  scalar.tile_n = std::min(vectors, widest);
  if (ceil_div(s.out_width(), scalar.columns()) > caps.max_workgroup_count[1]) return;
  config = scalar;
}

}  // namespace

MlaAbsorbShape MlaAbsorbShape::packed(uint32_t tokens, uint32_t heads, uint32_t nope, uint32_t v,
                                      uint32_t rank, MlaAbsorbDirection direction,
                                      MlaAbsorbWeight weight_type) {
  MlaAbsorbShape s;
  s.tokens = tokens, s.heads = heads, s.nope = nope, s.v = v, s.rank = rank;
  s.direction = direction, s.weight_type = weight_type;
  s.w_stride = round_up(rank, 16 / weight_bytes(weight_type));
  s.w_scale_stride = ceil_div(rank, kFp8BlockElems);
  s.in_head_stride = s.in_width(), s.out_head_stride = s.out_width();
  s.in_token_stride = heads * s.in_head_stride, s.out_token_stride = heads * s.out_head_stride;
  return s;
}

uint32_t MlaAbsorbConfig::columns() const {
  return lane_columns(*this) * tile_n * workgroup_size;
}

std::string MlaAbsorbConfig::to_string() const {
  std::string text =
      fmt::format("mla_absorb: {}, {}, w {}, tile {}x{}, workgroup {}, {}", gemm_path_name(path),
                  direction == MlaAbsorbDirection::kQuery ? "query" : "value",
                  weight_type == MlaAbsorbWeight::kE4m3 ? "e4m3" : "bf16", tile_m, columns(),
                  workgroup_size, use_fma ? "fma" : "mul+add");
  if (!rejected.empty()) text.append("; not ").append(rejected);
  return text;
}

Status mla_absorb_check(const MlaAbsorbShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "mla_absorb: " + std::move(text));
  };
  constexpr uint32_t kMaxWidth = 1u << 24;  // keeps byte offsets inside a row far from 32 bits
  if (s.rank > kMaxWidth)
    return error(fmt::format("rank must be at most {}, got {}", kMaxWidth, s.rank));
  if (s.nope > kMaxWidth)
    return error(fmt::format("nope must be at most {}, got {}", kMaxWidth, s.nope));
  if (s.v > kMaxWidth) return error(fmt::format("v must be at most {}, got {}", kMaxWidth, s.v));
  if (s.heads > caps.max_workgroup_count[2]) {
    return error(
        fmt::format("heads must be at most {}, got {}", caps.max_workgroup_count[2], s.heads));
  }
  const uint64_t rows = uint64_t{s.heads} * (s.nope + s.v);
  if (rows > 1u << 31) {
    return error(fmt::format("heads * (nope + v) must be at most {}, got {}", 1u << 31, rows));
  }
  const uint64_t max_tokens = uint64_t{kSmallestTileM} * caps.max_workgroup_count[1];
  if (s.tokens > max_tokens) {
    return error(fmt::format("tokens must be at most {}, got {}", max_tokens, s.tokens));
  }
  if (s.w_stride < s.rank) {
    return error(fmt::format("w_stride must be at least rank, got {} < {}", s.w_stride, s.rank));
  }
  const uint32_t w_step = 16 / weight_bytes(s.weight_type);
  if (s.w_stride % w_step) {
    return error(fmt::format("w_stride must be a multiple of {} elements (16 bytes), got {}",
                             w_step, s.w_stride));
  }
  const uint32_t blocks = ceil_div(s.rank, kFp8BlockElems);
  if (s.weight_type == MlaAbsorbWeight::kE4m3 && s.w_scale_stride < blocks) {
    return error(fmt::format("w_scale_stride must be at least ceil(rank/128), got {} < {}",
                             s.w_scale_stride, blocks));
  }
  if (s.in_head_stride < s.in_width()) {
    return error(
        fmt::format("in_head_stride must be at least {}, got {}", s.in_width(), s.in_head_stride));
  }
  if (const uint64_t span = token_span(s.heads, s.in_head_stride, s.in_width());
      s.in_token_stride < span) {
    return error(
        fmt::format("in_token_stride must be at least {}, got {}", span, s.in_token_stride));
  }
  if (s.out_head_stride < s.out_width()) {
    return error(fmt::format("out_head_stride must be at least {}, got {}", s.out_width(),
                             s.out_head_stride));
  }
  if (const uint64_t span = token_span(s.heads, s.out_head_stride, s.out_width());
      s.out_token_stride < span) {
    return error(
        fmt::format("out_token_stride must be at least {}, got {}", span, s.out_token_stride));
  }
  return {};
}

MlaAbsorbConfig mla_absorb_choose(const MlaAbsorbShape& shape, const Caps& caps) {
  MlaAbsorbConfig config;
  config.direction = shape.direction;
  config.weight_type = shape.weight_type;
  config.use_fma = caps.use_fma;
  config.workgroup_size = column_workgroup_size(caps);
  // Tiles by measurement (mla_absorb.md): tokens share the loads and the decoding of w. On a CPU a
  // workgroup takes wide stretches of w, in the query direction so that it reads whole rows; a GPU
  // has enough invocations for that and wants many workgroups.
  const bool query = shape.direction == MlaAbsorbDirection::kQuery;
  config.tile_m = shape.tokens <= 1 ? 1 : query || shape.tokens <= 4 ? 4 : 8;
  const uint32_t sweeps = ceil_div(shape.out_width(), lane_columns(config) * config.workgroup_size);
  config.tile_n = caps.is_cpu ? std::clamp(sweeps, 1u, query ? 4u : 8u) : 1;
  config.rejected = coopmat_rejection(caps);
  try_scalar_path(shape, caps, config);
  return config;
}

MlaAbsorb::MlaAbsorb(const Device& device, const vk::Pipeline* pipeline, MlaAbsorbConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<MlaAbsorb> MlaAbsorb::create(Device& device, const MlaAbsorbConfig& config) {
  const bool value = config.direction == MlaAbsorbDirection::kValue;
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(
                   device, config.path == GemmPath::kScalar ? "mla_absorb_scalar" : "mla_absorb",
                   config.workgroup_size,
                   {{layout::kSpecUseFma, config.use_fma},
                    {layout::kMlaAbsorbSpecTileM, config.tile_m},
                    {layout::kMlaAbsorbSpecTileN, config.tile_n},
                    {layout::kMlaAbsorbSpecValue, value},
                    {layout::kMlaAbsorbSpecWBf16, config.weight_type == MlaAbsorbWeight::kBf16}},
                   sizeof(layout::MlaAbsorbPush)));
  return MlaAbsorb(device, pipeline, config);
}

Status MlaAbsorb::record(Recorder& recorder, const MlaAbsorbShape& shape,
                         const MlaAbsorbArgs& args) const {
  HADAL_TRY(mla_absorb_check(shape, device_->caps()));
  if (shape.direction != config_.direction || shape.weight_type != config_.weight_type) {
    return {Errc::kInvalidArgument,
            "mla_absorb: direction and weight_type must be the configuration's"};
  }
  if (args.w % 16) {
    return {Errc::kInvalidArgument,
            fmt::format("mla_absorb: w must be 16-byte aligned, got {:#x}", args.w)};
  }
  if (shape.tokens == 0 || shape.heads == 0 || shape.out_width() == 0) return {};

  layout::MlaAbsorbPush push{};
  push.source = args.in, push.w = args.w, push.w_scale = args.w_scale, push.result = args.out;
  push.tokens = shape.tokens, push.nope = shape.nope, push.v = shape.v, push.rank = shape.rank;
  push.w_stride = shape.w_stride, push.w_scale_stride = shape.w_scale_stride;
  push.in_token_stride = shape.in_token_stride, push.in_head_stride = shape.in_head_stride;
  // Some drivers load from an operand of no elements; it gets the address of another.
  const bool query = shape.direction == MlaAbsorbDirection::kQuery;
  if ((query ? shape.nope : shape.rank) == 0) {
    push.source = args.out, push.in_token_stride = push.in_head_stride = 0;
  }
  push.out_token_stride = shape.out_token_stride, push.out_head_stride = shape.out_head_stride;

  const uint32_t rows = shape.heads * (shape.nope + shape.v);
  const bool scaled = shape.weight_type == MlaAbsorbWeight::kE4m3;
  const DeviceRange reads[] = {
      {args.in,
       strided_bytes(shape.tokens, token_span(shape.heads, shape.in_head_stride, shape.in_width()),
                     shape.in_token_stride, 4)},
      {args.w, strided_bytes(rows, shape.rank, shape.w_stride, weight_bytes(shape.weight_type))},
      {args.w_scale,
       scaled ? strided_bytes(ceil_div(rows, kFp8BlockElems), ceil_div(shape.rank, kFp8BlockElems),
                              shape.w_scale_stride, 4)
              : 0}};
  const DeviceRange out{
      args.out,
      strided_bytes(shape.tokens, token_span(shape.heads, shape.out_head_stride, shape.out_width()),
                    shape.out_token_stride, 4)};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "mla_absorb";
  dispatch.push = push_bytes(push);
  const uint32_t columns = ceil_div(shape.out_width(), config_.columns());
  const uint32_t tokens = ceil_div(shape.tokens, config_.tile_m);
  dispatch.groups = {columns, tokens, shape.heads};
  if (config_.path == GemmPath::kScalar) dispatch.groups = {tokens, columns, shape.heads};
  dispatch.reads = reads;
  dispatch.writes = {&out, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
