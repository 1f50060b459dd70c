// What the kernels over the paged latent cache share. Private.
#pragma once

#include <cstdint>
#include <string_view>

#include "hadal/buffer.h"
#include "hadal/cache_format.h"
#include "hadal/status.h"
#include "kernel_util.h"

namespace hadal {

// The rules of row_stride. rank + rope has been checked already.
[[nodiscard]] Status cache_row_check(std::string_view kernel, CacheFormat format, uint32_t rank,
                                     uint32_t rope, uint32_t row_stride);
// FP8 rows are read and written as words.
[[nodiscard]] Status cache_address_check(std::string_view kernel, CacheFormat format,
                                         DeviceAddress cache);

// All of a cache: which rows a kernel touches is known on the device only.
[[nodiscard]] inline DeviceRange cache_range(DeviceAddress cache, CacheFormat format, uint32_t rows,
                                             uint32_t rank, uint32_t rope, uint32_t row_stride) {
  return {cache, strided_bytes(rows, cache_row_width(format, rank, rope), row_stride,
                               cache_stride_unit(format))};
}

}  // namespace hadal
