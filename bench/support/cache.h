// Latent caches of random rows for the benches of the kernels over them.
#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "hadal/cache_format.h"
#include "hadal/reference/fp8_cache_row.h"
#include "support/bench.h"

namespace hadal::bench {

// The format of a bench's word.
[[nodiscard]] inline CacheFormat cache_format(std::string_view word) {
  return word == "fp8"    ? CacheFormat::kFp8
         : word == "bf16" ? CacheFormat::kBf16
                          : CacheFormat::kF32;
}

// Rows of packed stride, channels in [-1, 1].
[[nodiscard]] inline Buffer cache_rows(Bench& bench, CacheFormat format, uint64_t rows,
                                       uint32_t rank, uint32_t rope) {
  const uint64_t units = rows * cache_row_width(format, rank, rope);
  if (format == CacheFormat::kF32) return bench.floats(units, -1.0f, 1.0f);
  if (format == CacheFormat::kBf16) return bench.bf16(units, -1.0f, 1.0f);
  const uint32_t width = rank + rope;
  const Buffer source = bench.floats(64 * width, -1.0f, 1.0f);  // enough different rows
  const std::vector<float> values = bench.read_floats(source, 64 * width);
  const uint64_t row_bytes = units / std::max<uint64_t>(rows, 1);
  std::vector<uint8_t> bytes(units);
  for (uint64_t r = 0; r < rows; ++r) {
    uint8_t* row = &bytes[r * row_bytes];
    if (r < 64) {
      reference::Fp8CacheRow::quantize(&values[r * width], rank, rope, ScaleFormat::kFp32)
          .write(row);
    } else {
      std::copy_n(&bytes[r % 64 * row_bytes], row_bytes, row);
    }
  }
  return bench.upload(bytes);
}

}  // namespace hadal::bench
