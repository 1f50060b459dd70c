#include "hadal/mla_cache_read.h"

#include <fmt/format.h>

#include "cache_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/kv_page.h"
#include "layout/mla_cache_read.h"
#include "vk/pipeline.h"

namespace hadal {

MlaCacheReadShape MlaCacheReadShape::packed(uint32_t begin, uint32_t rows, uint32_t rank,
                                            uint32_t rope, uint32_t cache_rows,
                                            CacheFormat format) {
  MlaCacheReadShape shape;
  shape.begin = begin, shape.rows = rows, shape.rank = rank, shape.rope = rope;
  shape.row_stride = uint32_t(cache_row_width(format, rank, rope)), shape.cache_format = format;
  shape.latent_stride = rank, shape.k_pe_stride = rope;
  shape.q_stride = round_up(rank, 16);
  shape.scale_stride = ceil_div(rank, kFp8BlockElems);
  shape.cache_rows = cache_rows;
  shape.table_pages = ceil_div(begin + rows, layout::kKvPageTokens);
  return shape;
}

std::string MlaCacheReadConfig::to_string() const {
  return fmt::format("mla_cache_read: workgroup {}, cache {}", workgroup_size,
                     cache_format_name(cache_format));
}

Status mla_cache_read_check(const MlaCacheReadShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "mla_cache_read: " + std::move(text));
  };
  constexpr uint32_t kMaxWidth = 1u << 24;  // keeps byte offsets inside a row far from 32 bits
  const uint64_t width = uint64_t{s.rank} + s.rope;
  const uint64_t end = uint64_t{s.begin} + s.rows;
  const uint64_t positions = uint64_t{s.table_pages} * layout::kKvPageTokens;
  const uint32_t groups = ceil_div(s.rank, kFp8BlockElems);
  if (width > kMaxWidth) {
    return error(fmt::format("rank + rope must be at most {}, got {}", kMaxWidth, width));
  }
  HADAL_TRY(cache_row_check("mla_cache_read", s.cache_format, s.rank, s.rope, s.row_stride));
  if (s.latent_stride < s.rank) {
    return error(
        fmt::format("latent_stride must be at least rank, got {} < {}", s.latent_stride, s.rank));
  }
  if (s.k_pe_stride < s.rope) {
    return error(
        fmt::format("k_pe_stride must be at least rope, got {} < {}", s.k_pe_stride, s.rope));
  }
  if (s.q_stride < s.rank) {
    return error(fmt::format("q_stride must be at least rank, got {} < {}", s.q_stride, s.rank));
  }
  if (s.q_stride % 16) {
    return error(fmt::format("q_stride must be a multiple of 16 bytes, got {}", s.q_stride));
  }
  if (s.scale_stride < groups) {
    return error(fmt::format("scale_stride must be at least ceil(rank/128), got {} < {}",
                             s.scale_stride, groups));
  }
  if (end > positions) {
    return error(
        fmt::format("begin + rows must be at most 64 * table_pages, got {} > {}", end, positions));
  }
  if (s.rows > caps.max_workgroup_count[0]) {
    return error(
        fmt::format("rows must be at most {}, got {}", caps.max_workgroup_count[0], s.rows));
  }
  return {};
}

MlaCacheReadConfig mla_cache_read_choose(const MlaCacheReadShape& shape, const Caps& caps) {
  return {row_workgroup_size(caps), shape.cache_format};
}

MlaCacheRead::MlaCacheRead(const Device& device, const vk::Pipeline* pipeline,
                           MlaCacheReadConfig config)
    : device_(&device), pipeline_(pipeline), config_(config) {}

Result<MlaCacheRead> MlaCacheRead::create(Device& device, const MlaCacheReadConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "mla_cache_read", config.workgroup_size,
                                 {{layout::kMlaCacheReadSpecFormat, uint32_t(config.cache_format)}},
                                 sizeof(layout::MlaCacheReadPush)));
  return MlaCacheRead(device, pipeline, config);
}

Status MlaCacheRead::record(Recorder& recorder, const MlaCacheReadShape& shape,
                            const MlaCacheReadArgs& args) const {
  HADAL_TRY(mla_cache_read_check(shape, device_->caps()));
  if (shape.cache_format != config_.cache_format) {
    return {Errc::kInvalidArgument, "mla_cache_read: cache_format must be the configuration's"};
  }
  HADAL_TRY(cache_address_check("mla_cache_read", shape.cache_format, args.cache));
  if (args.q % 16) {
    return {Errc::kInvalidArgument,
            fmt::format("mla_cache_read: q must be 16-byte aligned, got {:#x}", args.q)};
  }
  if ((args.q != 0) != (args.scale != 0)) {
    return {Errc::kInvalidArgument, "mla_cache_read: q and scale must come together"};
  }
  if (shape.rows == 0) return {};

  layout::MlaCacheReadPush push{};
  push.cache = args.cache, push.block_table = args.block_table;
  push.latent = args.latent, push.k_pe = args.k_pe, push.q = args.q, push.scale = args.scale;
  push.begin = shape.begin, push.rank = shape.rank, push.rope = shape.rope;
  push.row_stride = shape.row_stride;
  push.latent_stride = shape.latent_stride, push.k_pe_stride = shape.k_pe_stride;
  push.q_stride = shape.q_stride, push.scale_stride = shape.scale_stride;
  push.cache_rows = shape.cache_rows;
  push.flags = shape.scale_format == ScaleFormat::kUe8m0 ? layout::kMlaCacheReadFlagUe8m0 : 0;

  const auto wanted = [](DeviceAddress address, uint64_t bytes) {
    return DeviceRange{address, address ? bytes : 0};
  };
  const uint32_t first_page = shape.begin / layout::kKvPageTokens;
  const uint32_t pages = ceil_div(shape.begin + shape.rows, layout::kKvPageTokens) - first_page;
  const DeviceRange reads[] = {cache_range(args.cache, shape.cache_format, shape.cache_rows,
                                           shape.rank, shape.rope, shape.row_stride),
                               {args.block_table + uint64_t{first_page} * 4, uint64_t{pages} * 4}};
  const DeviceRange writes[] = {
      wanted(args.latent, strided_bytes(shape.rows, shape.rank, shape.latent_stride, 4)),
      wanted(args.k_pe, strided_bytes(shape.rows, shape.rope, shape.k_pe_stride, 4)),
      wanted(args.q, strided_bytes(shape.rows, shape.rank, shape.q_stride, 1)),
      wanted(args.scale, strided_bytes(shape.rows, ceil_div(shape.rank, kFp8BlockElems),
                                       shape.scale_stride, 4))};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "mla_cache_read";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.rows, 1, 1};
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
