// Everything that kernels/mla_cache_write.cpp and shaders/mla_cache_write.comp both know.
#ifndef HADAL_LAYOUT_MLA_CACHE_WRITE_H_
#define HADAL_LAYOUT_MLA_CACHE_WRITE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kMlaCacheWriteSpecFormat, 10);    // kKvFormat... (kv_page.h)
HADAL_CONST(kMlaCacheWriteSpecRounding, 11);  // LatentRounding: 0 none, 1 FP32 scales, 2 UE8M0

struct MlaCacheWritePush {
  uint64_t y;          // [tokens, rank + rope] float
  uint64_t weight;     // [rank] float
  uint64_t positions;  // [tokens] uint
  uint64_t table;      // [max_position, pairs, 2] float
  uint64_t slots;      // [tokens] uint
  uint64_t cache;      // [cache_rows] rows (kv_page.h)
  uint rank;
  uint pairs;       // rope / 2
  uint y_stride;    // elements
  uint row_stride;  // in kv_stride_unit
  uint cache_rows;
  uint pair_step;  // elements between the first channels of consecutive pairs: 2 or 1
  uint partner;    // elements between the two channels of a pair: 1 or pairs
  uint max_position;
  float eps;
  float inverse_rank;  // 1 / rank
};
HADAL_CHECK_SIZE(MlaCacheWritePush, 88);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MLA_CACHE_WRITE_H_
