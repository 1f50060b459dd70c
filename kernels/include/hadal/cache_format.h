// How the paged latent cache stores a row [latent | rotated key]. Rows of a page follow each other
// row_stride apart (shaders/layout/kv_page.h has the offsets for both languages):
//
//   kF32, kBf16  rank + rope elements; row_stride counts elements
//   kFp8         rank e4m3 codes, at round_up(rank, 4) ceil(rank/128) float scales, then rope
//                bfloat16 values, padded to a multiple of 16 bytes; row_stride counts bytes and is
//                a multiple of 16. A latent is code * scale of its group of 128 channels.
//                DeepSeek-V3: 512 + 16 + 128 = 656 bytes, FlashMLA's row.
//
// Pure. Source: FlashMLA's FP8 KV cache (README, tests/quant.py), generalised to any rank and rope.
#pragma once

#include <cstdint>
#include <string_view>

namespace hadal {

enum class CacheFormat { kF32, kBf16, kFp8 };

// "f32", "bf16", "fp8".
[[nodiscard]] constexpr std::string_view cache_format_name(CacheFormat format) {
  return format == CacheFormat::kF32 ? "f32" : format == CacheFormat::kBf16 ? "bf16" : "fp8";
}
// Bytes of what row_stride counts: an element, or one byte of an FP8 row.
[[nodiscard]] uint32_t cache_stride_unit(CacheFormat format);

// The smallest row_stride, in its unit: rank + rope, or an FP8 row's bytes with their padding; for
// rank below 2^31.
[[nodiscard]] uint64_t cache_row_width(CacheFormat format, uint32_t rank, uint32_t rope);
// A row_stride for a cache of one's own: every row at a multiple of 16 bytes. rank + rope below
// 2^30.
[[nodiscard]] uint32_t cache_row_stride(CacheFormat format, uint32_t rank, uint32_t rope);
// Bytes from the start of an FP8 row to its scales, and to its rotated key.
[[nodiscard]] uint32_t cache_fp8_scales_offset(uint32_t rank);
[[nodiscard]] uint32_t cache_fp8_rope_offset(uint32_t rank);

}  // namespace hadal
