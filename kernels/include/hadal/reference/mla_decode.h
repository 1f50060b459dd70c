// CPU reference of mla_decode (hadal/mla_decode.h), in double, written as the formula.
#pragma once

#include <cstdint>

#include "hadal/mla_decode.h"
#include "hadal/reference/mla_prefill.h"

namespace hadal::reference {

struct MlaDecodeInputs {
  const float* q_latent = nullptr;  // strides as in the shape
  const float* q_pe = nullptr;
  const float* cache = nullptr;  // float, or bfloat16 codes already decoded
  const uint32_t* block_tables = nullptr;
  const uint32_t* kv_lens = nullptr;
  const uint8_t* fp8_cache = nullptr;  // the bytes of the rows when shape.cache_format is kFp8
};

// [tokens, heads, rank].
[[nodiscard]] AttentionResult mla_decode(const MlaDecodeShape& shape,
                                         const MlaDecodeInputs& inputs);

}  // namespace hadal::reference
