#include "hadal/cache_format.h"

#include <fmt/format.h>

#include "cache_util.h"
#include "hadal/types.h"
#include "layout/kv_page.h"

namespace hadal {

static_assert(uint32_t(CacheFormat::kF32) == layout::kKvFormatF32);
static_assert(uint32_t(CacheFormat::kBf16) == layout::kKvFormatBf16);
static_assert(uint32_t(CacheFormat::kFp8) == layout::kKvFormatFp8);
static_assert(layout::kv_fp8_rope_offset(512) + 2 * 64 == 656);  // FlashMLA's row

uint32_t cache_stride_unit(CacheFormat format) {
  return layout::kv_stride_unit(uint32_t(format));
}

uint64_t cache_row_width(CacheFormat format, uint32_t rank, uint32_t rope) {
  if (format != CacheFormat::kFp8) return uint64_t{rank} + rope;
  const uint64_t bytes = uint64_t{layout::kv_fp8_rope_offset(rank)} + uint64_t{rope} * 2;
  return (bytes + layout::kKvFp8RowAlign - 1) / layout::kKvFp8RowAlign * layout::kKvFp8RowAlign;
}

uint32_t cache_row_stride(CacheFormat format, uint32_t rank, uint32_t rope) {
  const uint32_t width = uint32_t(cache_row_width(format, rank, rope));
  return format == CacheFormat::kFp8 ? width : round_up(width, 8);
}

uint32_t cache_fp8_scales_offset(uint32_t rank) {
  return layout::kv_fp8_scales_offset(rank);
}
uint32_t cache_fp8_rope_offset(uint32_t rank) {
  return layout::kv_fp8_rope_offset(rank);
}

Status cache_row_check(std::string_view kernel, CacheFormat format, uint32_t rank, uint32_t rope,
                       uint32_t row_stride) {
  const uint64_t width = cache_row_width(format, rank, rope);
  const bool fp8 = format == CacheFormat::kFp8;
  if (row_stride < width) {
    return {Errc::kInvalidArgument,
            fmt::format("{}: row_stride must be at least {}, got {} < {}", kernel,
                        fp8 ? "the bytes of an fp8 row" : "rank + rope", row_stride, width)};
  }
  if (fp8 && row_stride % layout::kKvFp8RowAlign) {
    return {Errc::kInvalidArgument,
            fmt::format("{}: row_stride must be a multiple of {} bytes, got {}", kernel,
                        layout::kKvFp8RowAlign, row_stride)};
  }
  return {};
}

Status cache_address_check(std::string_view kernel, CacheFormat format, DeviceAddress cache) {
  if (format != CacheFormat::kFp8 || cache % layout::kKvFp8RowAlign == 0) return {};
  return {Errc::kInvalidArgument, fmt::format("{}: cache must be {}-byte aligned, got {:#x}",
                                              kernel, layout::kKvFp8RowAlign, cache)};
}

}  // namespace hadal
