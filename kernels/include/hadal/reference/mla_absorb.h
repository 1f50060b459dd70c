// CPU reference of mla_absorb (hadal/mla_absorb.h), in double, written as the formula.
#pragma once

#include <cstdint>

#include "hadal/mla_absorb.h"
#include "hadal/reference/fp8_gemm.h"

namespace hadal::reference {

struct MlaAbsorbInputs {
  const float* in = nullptr;
  const uint8_t* w = nullptr;  // when shape.weight_type is kE4m3
  const float* w_scale = nullptr;
  const uint16_t* w_bf16 = nullptr;  // when it is kBf16
};

// [tokens, heads, rank | v], dense. Uses the input's strides of `shape`, not the output's.
[[nodiscard]] ValueAndMagnitude mla_absorb(const MlaAbsorbShape& shape,
                                           const MlaAbsorbInputs& inputs);

}  // namespace hadal::reference
