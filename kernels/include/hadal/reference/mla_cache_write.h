// CPU reference of mla_cache_write (hadal/mla_cache_write.h), in double, written as the formula.
#pragma once

#include <cstdint>

#include "hadal/mla_cache_write.h"
#include "hadal/reference/fp8_gemm.h"

namespace hadal::reference {

struct MlaCacheWriteInputs {
  const float* y = nullptr;  // row stride shape.y_stride
  const float* weight = nullptr;
  const uint32_t* positions = nullptr;
  const float* table = nullptr;
};

// The rows [tokens, rank + rope] as stored (before rounding to cache_format), in token order.
[[nodiscard]] ValueAndMagnitude mla_cache_write(const MlaCacheWriteShape& shape,
                                                const MlaCacheWriteInputs& inputs);

}  // namespace hadal::reference
