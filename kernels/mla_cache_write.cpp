#include "hadal/mla_cache_write.h"

#include <fmt/format.h>

#include "cache_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/mla_cache_write.h"
#include "vk/pipeline.h"

namespace hadal {

MlaCacheWriteShape MlaCacheWriteShape::packed(uint32_t tokens, uint32_t rank, uint32_t rope,
                                              uint32_t cache_rows, uint32_t max_position,
                                              CacheFormat format) {
  MlaCacheWriteShape shape;
  shape.tokens = tokens, shape.rank = rank, shape.rope = rope;
  shape.y_stride = rank + rope;
  shape.row_stride = uint32_t(cache_row_width(format, rank, rope)), shape.cache_format = format;
  shape.cache_rows = cache_rows, shape.max_position = max_position;
  return shape;
}

std::string MlaCacheWriteConfig::to_string() const {
  const bool fp8 = cache_format == CacheFormat::kFp8;
  const char* latent = rounding == LatentRounding::kFp8Ue8m0     ? "rounded to e4m3, UE8M0"
                       : fp8 || rounding == LatentRounding::kFp8 ? "rounded to e4m3"
                                                                 : "as it is";
  return fmt::format("mla_cache_write: workgroup {}, cache {}, latent {}, {}", workgroup_size,
                     cache_format_name(cache_format), latent, use_fma ? "fma" : "mul+add");
}

Status mla_cache_write_check(const MlaCacheWriteShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "mla_cache_write: " + std::move(text));
  };
  constexpr uint32_t kMaxWidth = 1u << 24;  // keeps byte offsets inside a row far from 32 bits
  const uint64_t width = uint64_t{s.rank} + s.rope;
  if (s.rope % 2) return error(fmt::format("rope must be even, got {}", s.rope));
  if (width > kMaxWidth) {
    return error(fmt::format("rank + rope must be at most {}, got {}", kMaxWidth, width));
  }
  if (s.y_stride < width) {
    return error(
        fmt::format("y_stride must be at least rank + rope, got {} < {}", s.y_stride, width));
  }
  HADAL_TRY(cache_row_check("mla_cache_write", s.cache_format, s.rank, s.rope, s.row_stride));
  if (s.cache_rows == 0xffffffffu) return error("cache_rows must be at most 4294967294");
  if (s.tokens > caps.max_workgroup_count[0]) {
    return error(
        fmt::format("tokens must be at most {}, got {}", caps.max_workgroup_count[0], s.tokens));
  }
  return {};
}

MlaCacheWriteConfig mla_cache_write_choose(const MlaCacheWriteShape& shape, const Caps& caps) {
  MlaCacheWriteConfig config;
  config.workgroup_size = row_workgroup_size(caps);
  config.cache_format = shape.cache_format;
  config.rounding = shape.rounding;
  config.use_fma = caps.use_fma;
  return config;
}

MlaCacheWrite::MlaCacheWrite(const Device& device, const vk::Pipeline* pipeline,
                             MlaCacheWriteConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<MlaCacheWrite> MlaCacheWrite::create(Device& device, const MlaCacheWriteConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "mla_cache_write", config.workgroup_size,
                                 {{layout::kSpecUseFma, config.use_fma},
                                  {layout::kMlaCacheWriteSpecFormat, uint32_t(config.cache_format)},
                                  {layout::kMlaCacheWriteSpecRounding, uint32_t(config.rounding)}},
                                 sizeof(layout::MlaCacheWritePush)));
  return MlaCacheWrite(device, pipeline, config);
}

Status MlaCacheWrite::record(Recorder& recorder, const MlaCacheWriteShape& shape,
                             const MlaCacheWriteArgs& args) const {
  HADAL_TRY(mla_cache_write_check(shape, device_->caps()));
  if (shape.cache_format != config_.cache_format || shape.rounding != config_.rounding) {
    return {Errc::kInvalidArgument,
            "mla_cache_write: cache_format and rounding must be the configuration's"};
  }
  HADAL_TRY(cache_address_check("mla_cache_write", shape.cache_format, args.cache));
  const uint32_t width = shape.rank + shape.rope;
  if (shape.tokens == 0 || width == 0 || shape.cache_rows == 0) return {};

  layout::MlaCacheWritePush push{};
  push.y = args.y, push.weight = args.weight, push.positions = args.positions;
  push.table = args.table, push.slots = args.slots, push.cache = args.cache;
  push.rank = shape.rank, push.pairs = shape.rope / 2;
  push.y_stride = shape.y_stride, push.row_stride = shape.row_stride;
  push.cache_rows = shape.cache_rows;
  push.pair_step = shape.interleaved ? 2 : 1;
  push.partner = shape.interleaved ? 1 : shape.rope / 2;
  push.max_position = shape.max_position;
  push.eps = shape.eps;
  push.inverse_rank = shape.rank ? 1.0f / float(shape.rank) : 0.0f;

  const DeviceRange cache = cache_range(args.cache, shape.cache_format, shape.cache_rows,
                                        shape.rank, shape.rope, shape.row_stride);
  const DeviceRange reads[] = {{args.y, strided_bytes(shape.tokens, width, shape.y_stride, 4)},
                               {args.weight, uint64_t{shape.rank} * 4},
                               {args.positions, uint64_t{shape.tokens} * 4},
                               {args.table, uint64_t{shape.max_position} * shape.rope * 4},
                               {args.slots, uint64_t{shape.tokens} * 4}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "mla_cache_write";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.tokens, 1, 1};
  dispatch.reads = reads;
  dispatch.writes = {&cache, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
