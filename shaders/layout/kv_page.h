// The paged KV cache: the one place that knows how a position becomes a row. The cache is an array
// of rows [latent | rotated key]; a page is kKvPageTokens consecutive rows, and a sequence's block
// table lists its pages: position p is row table[p / kKvPageTokens] * kKvPageTokens + p %
// kKvPageTokens. And the one place that knows what lies where in a row (hadal/cache_format.h says it
// in words).
#ifndef HADAL_LAYOUT_KV_PAGE_H_
#define HADAL_LAYOUT_KV_PAGE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kKvPageTokens, 64);
HADAL_CONST(kKvNoSlot, 0xffffffffu);  // a token that is not stored

// CacheFormat. Rows of the first two are rank + rope elements.
HADAL_CONST(kKvFormatF32, 0);
HADAL_CONST(kKvFormatBf16, 1);
HADAL_CONST(kKvFormatFp8, 2);
// Bytes of what a row stride counts: an element, or one byte of an FP8 row.
HADAL_FUNCTION uint kv_stride_unit(uint format) {
  return format == kKvFormatF32 ? 4 : format == kKvFormatBf16 ? 2 : 1;
}

// An FP8 row: rank e4m3 codes, a float per group of kFp8Block, rope bfloat16 values; in bytes from its
// start. Rows start at multiples of kKvFp8RowAlign; scales and rotated key at multiples of 4.
HADAL_CONST(kKvFp8RowAlign, 16);
HADAL_FUNCTION uint kv_fp8_scales_offset(uint rank) { return (rank + 3) / 4 * 4; }
HADAL_FUNCTION uint kv_fp8_rope_offset(uint rank) {
  return kv_fp8_scales_offset(rank) + (rank + kFp8Block - 1) / kFp8Block * 4;
}
// Bytes from a row's start to its rotated key, in any format.
HADAL_FUNCTION uint kv_key_offset(uint format, uint rank) {
  return format == kKvFormatFp8 ? kv_fp8_rope_offset(rank) : rank * kv_stride_unit(format);
}

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_KV_PAGE_H_
