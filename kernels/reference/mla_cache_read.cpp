#include "hadal/reference/mla_cache_read.h"

#include "hadal/reference/fp8_cache_row.h"

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

MlaCacheRows mla_cache_read_fp8(const MlaCacheReadShape& s, const uint8_t* cache,
                                const uint32_t* block_table) {
  MlaCacheRows rows;
  for (uint32_t p = s.begin; p < s.begin + s.rows; ++p) {
    const size_t slot = size_t(block_table[p / 64]) * 64 + p % 64;
    const Fp8CacheRow row = Fp8CacheRow::read(cache + slot * s.row_stride, s.rank, s.rope);
    const std::vector<double> values = row.values();
    for (uint32_t c = 0; c < s.rank; ++c) rows.latent.push_back(float(values[c]));
    for (uint32_t c = 0; c < s.rope; ++c) rows.k_pe.push_back(float(values[s.rank + c]));
    rows.q.insert(rows.q.end(), row.codes.begin(), row.codes.end());
    rows.scale.insert(rows.scale.end(), row.scales.begin(), row.scales.end());
  }
  return rows;
}

}  // namespace hadal::reference
