// CPU reference of bf16_grouped_gemm (hadal/bf16_grouped_gemm.h), in double: bf16_gemm per segment.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/bf16_grouped_gemm.h"
#include "hadal/reference/bf16_gemm.h"

namespace hadal::reference {

struct Bf16GroupedGemmInputs {
  const float* a = nullptr;
  const uint32_t* a_rows = nullptr;                    // [rows]; nullptr = identity
  const std::vector<uint32_t>* expert_ends = nullptr;  // [experts]: end of each expert's segment
  std::vector<const uint16_t*> b;                      // [experts]
};

// [rows, n], dense.
[[nodiscard]] ValueAndMagnitude bf16_grouped_gemm(const Bf16GroupedGemmShape& shape,
                                                  const Bf16GroupedGemmInputs& inputs);

}  // namespace hadal::reference
