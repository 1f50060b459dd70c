// CPU reference of mla_cache_read (hadal/mla_cache_read.h): exact.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/mla_cache_read.h"

namespace hadal::reference {

struct MlaCacheRows {
  std::vector<float> latent;  // [rows, rank], dense
  std::vector<float> k_pe;    // [rows, rope], dense
};

// cache: float, or bfloat16 codes already decoded, row stride shape.row_stride. q and scale are
// reference::fp8_quantize of the latent.
[[nodiscard]] MlaCacheRows mla_cache_read(const MlaCacheReadShape& shape, const float* cache,
                                          const uint32_t* block_table);

}  // namespace hadal::reference
