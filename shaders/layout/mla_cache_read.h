// Everything that kernels/mla_cache_read.cpp and shaders/mla_cache_read.comp both know.
#ifndef HADAL_LAYOUT_MLA_CACHE_READ_H_
#define HADAL_LAYOUT_MLA_CACHE_READ_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kMlaCacheReadSpecFormat, 10);  // kKvFormat... (kv_page.h)

HADAL_CONST(kMlaCacheReadFlagUe8m0, 1);  // scales are powers of two

struct MlaCacheReadPush {
  uint64_t cache;        // [cache_rows] rows (kv_page.h)
  uint64_t block_table;  // [pages] uint
  uint64_t latent;       // [rows, rank] float, or 0
  uint64_t k_pe;         // [rows, rope] float, or 0
  uint64_t q;            // [rows, rank] e4m3, or 0
  uint64_t scale;        // [rows, ceil(rank/128)] float, with q
  uint begin;            // position of row 0
  uint rank;
  uint rope;
  uint row_stride;     // in kv_stride_unit
  uint latent_stride;  // elements
  uint k_pe_stride;    // elements
  uint q_stride;       // bytes
  uint scale_stride;   // elements
  uint cache_rows;
  uint flags;
};
HADAL_CHECK_SIZE(MlaCacheReadPush, 88);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MLA_CACHE_READ_H_
