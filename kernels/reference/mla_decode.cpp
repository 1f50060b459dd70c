#include "hadal/reference/mla_decode.h"

#include <algorithm>
#include <cmath>

#include "hadal/reference/fp8_cache_row.h"

namespace hadal::reference {
namespace {

// [latent | key] of a cache row, exact.
std::vector<double> row_values(const MlaDecodeShape& s, const MlaDecodeInputs& in, size_t row) {
  if (s.cache_format == CacheFormat::kFp8) {
    return Fp8CacheRow::read(in.fp8_cache + row * s.row_stride, s.rank, s.rope).values();
  }
  const float* values = in.cache + row * s.row_stride;
  return {values, values + s.rank + s.rope};
}

}  // namespace

AttentionResult mla_decode(const MlaDecodeShape& s, const MlaDecodeInputs& in) {
  AttentionResult result;
  const size_t width = size_t(s.rank) + s.rope;
  for (uint32_t t = 0; t < s.tokens; ++t) {
    const uint32_t sequence = t / s.q_len, behind = s.q_len - 1 - t % s.q_len;
    const uint32_t length = std::min(in.kv_lens[sequence], s.max_kv_len);
    const uint32_t keys = length > behind ? length - behind : 0;
    std::vector<double> rows;  // the sequence's keys, dense
    for (uint32_t j = 0; j < keys; ++j) {
      const size_t page = in.block_tables[size_t(sequence) * s.table_stride + j / 64];
      const std::vector<double> row = row_values(s, in, page * 64 + j % 64);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    for (uint32_t h = 0; h < s.heads; ++h) {
      const float* q_latent =
          in.q_latent + size_t(t) * s.q_latent_row_stride + size_t(h) * s.q_latent_head_stride;
      const float* q_pe = in.q_pe + size_t(t) * s.q_pe_row_stride + size_t(h) * s.q_pe_head_stride;
      std::vector<double> scores(keys), magnitudes(keys);
      for (uint32_t j = 0; j < keys; ++j) {
        double sum = 0.0, magnitude = 0.0;
        for (uint32_t c = 0; c < width; ++c) {
          const double q = double(c < s.rank ? q_latent[c] : q_pe[c - s.rank]);
          const double term = q * rows[j * width + c];
          sum += term, magnitude += std::fabs(term);
        }
        scores[j] = sum * double(s.scale);
        magnitudes[j] = magnitude * std::fabs(double(s.scale));
      }
      result.add_row(scores, magnitudes, rows.data(), width, s.rank);
    }
  }
  return result;
}

}  // namespace hadal::reference
