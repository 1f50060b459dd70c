// A row of an FP8 latent cache (hadal/cache_format.h) on the CPU; repeats its offsets on purpose.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/types.h"

namespace hadal::reference {

struct Fp8CacheRow {
  std::vector<uint8_t> codes;  // [rank]
  std::vector<float> scales;   // [ceil(rank/128)]
  std::vector<uint16_t> key;   // [rope], bfloat16

  // row: the bytes of a stored row.
  [[nodiscard]] static Fp8CacheRow read(const uint8_t* row, uint32_t rank, uint32_t rope);
  // The form of a float row [latent | key]: fp8_quantize of the latent, the key rounded.
  [[nodiscard]] static Fp8CacheRow quantize(const float* values, uint32_t rank, uint32_t rope,
                                            ScaleFormat format);
  // Stores the row's bytes; gaps and padding are left as they are.
  void write(uint8_t* row) const;
  // [latent | key]: code * scale needs more bits than a float has, and fits a double.
  [[nodiscard]] std::vector<double> values() const;
};

// Bytes of a row, padding included.
[[nodiscard]] uint32_t fp8_cache_row_bytes(uint32_t rank, uint32_t rope);

}  // namespace hadal::reference
