#include "hadal/reference/mla_cache_read.h"

namespace hadal::reference {

MlaCacheRows mla_cache_read(const MlaCacheReadShape& s, const float* cache,
                            const uint32_t* block_table) {
  MlaCacheRows rows;
  for (uint32_t p = s.begin; p < s.begin + s.rows; ++p) {
    const size_t slot = size_t(block_table[p / 64]) * 64 + p % 64;
    const float* row = cache + slot * s.row_stride;
    rows.latent.insert(rows.latent.end(), row, row + s.rank);
    rows.k_pe.insert(rows.k_pe.end(), row + s.rank, row + s.rank + s.rope);
  }
  return rows;
}

}  // namespace hadal::reference
