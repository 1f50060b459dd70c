// Everything that kernels/mla_decode.cpp, shaders/mla_decode.comp and mla_decode_combine.comp know.
#ifndef HADAL_LAYOUT_MLA_DECODE_H_
#define HADAL_LAYOUT_MLA_DECODE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kMlaDecodeSpecTile, 10);     // heads per workgroup
HADAL_CONST(kMlaDecodeSpecKeys, 11);     // keys per invocation: 64 / workgroup size
HADAL_CONST(kMlaDecodeSpecPairs, 12);    // pairs of latent channels per invocation
HADAL_CONST(kMlaDecodeSpecFormat, 13);   // kKvFormat... (kv_page.h)
HADAL_CONST(kMlaDecodeSpecOutBf16, 14);  // 1: o is bfloat16
HADAL_CONST(kMlaDecodeSpecVectors, 15);  // combining, 1: neighbouring floats are moved as vectors

// A split's keys, at absolute multiples: part of the bits, so never a tuning parameter.
HADAL_CONST(kMlaDecodeSplitKeys, 1024);

struct MlaDecodePush {
  uint64_t q_latent;      // [tokens, heads, rank] float
  uint64_t q_pe;          // [tokens, heads, rope] float
  uint64_t cache;         // [cache_rows] rows (kv_page.h)
  uint64_t block_tables;  // [tokens / q_len, table_stride] uint
  uint64_t kv_lens;       // [tokens / q_len] uint
  uint64_t o;             // [tokens, heads, rank] float or bfloat16
  uint64_t lse;           // [tokens, heads] float, or 0
  uint64_t partial_ml;    // [tokens, splits, heads, 2] float, or 0 when there is one split
  uint64_t partial_o;     // [tokens, splits, heads, rank] float
  uint heads_q_len;  // heads, and q_len in the upper half
  uint rank;
  uint rope;
  uint q_latent_row_stride;  // elements, as all strides
  uint q_latent_head_stride;
  uint q_pe_row_stride;
  uint q_pe_head_stride;
  uint row_stride;  // of the cache, in kv_stride_unit
  uint table_stride;
  uint o_row_stride;
  uint o_head_stride;
  uint max_kv_len;
  uint cache_rows;
  float scale;
};
HADAL_CHECK_SIZE(MlaDecodePush, 128);

// mla_decode_lanes.comp. Its scratch holds the partials as MlaDecodePush has them, none when there is
// one split, and behind them, at a multiple of 64, the workers' areas. The combining dispatch has
// MlaDecodePush on every path.
struct MlaDecodeLanesPush {
  uint64_t q_latent;
  uint64_t q_pe;
  uint64_t cache;
  uint64_t block_tables;
  uint64_t kv_lens;
  uint64_t o;
  uint64_t lse;
  uint64_t scratch;
  uint64_t e4m3_table;  // [256] float, code -> value, of FP8 rows
  uint tokens;
  uint heads_q_len;
  uint widths;  // rank, and rope in the upper half
  uint q_latent_row_stride;
  uint q_latent_head_stride;
  uint q_pe_row_stride;
  uint q_pe_head_stride;
  uint row_stride;
  uint table_stride;
  uint o_row_stride;
  uint o_head_stride;
  uint max_kv_len;
  uint cache_rows;
  float scale;
};
HADAL_CHECK_SIZE(MlaDecodeLanesPush, 128);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MLA_DECODE_H_
