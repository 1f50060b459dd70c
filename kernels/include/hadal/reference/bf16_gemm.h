// CPU reference of bf16_gemm (hadal/bf16_gemm.h), in double, written as the formula.
#pragma once

#include <cstdint>

#include "hadal/bf16_gemm.h"
#include "hadal/reference/fp8_gemm.h"

namespace hadal::reference {

struct Bf16GemmInputs {
  const float* a = nullptr;          // when shape.a_type is kF32
  const uint16_t* a_bf16 = nullptr;  // when it is kBf16
  const uint16_t* b = nullptr;
};

// [batch, m, n], dense; without d's old value. Only batch, m, n, k, a_type and the strides of
// `shape` are used.
[[nodiscard]] ValueAndMagnitude bf16_gemm(const Bf16GemmShape& shape, const Bf16GemmInputs& inputs);

}  // namespace hadal::reference
