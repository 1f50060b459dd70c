// CPU reference of mla_cache_read (hadal/mla_cache_read.h): exact.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/mla_cache_read.h"

namespace hadal::reference {

struct MlaCacheRows {
  std::vector<float> latent;  // [rows, rank], dense
  std::vector<float> k_pe;    // [rows, rope], dense
  // Of FP8 rows, as stored; of others reference::fp8_quantize of the latent gives them.
  std::vector<uint8_t> q;    // [rows, rank], dense
  std::vector<float> scale;  // [rows, ceil(rank/128)], dense
};

// cache: float, or bfloat16 codes already decoded, row stride shape.row_stride.
[[nodiscard]] MlaCacheRows mla_cache_read(const MlaCacheReadShape& shape, const float* cache,
                                          const uint32_t* block_table);

// cache: the bytes of FP8 rows.
[[nodiscard]] MlaCacheRows mla_cache_read_fp8(const MlaCacheReadShape& shape, const uint8_t* cache,
                                              const uint32_t* block_table);

}  // namespace hadal::reference
