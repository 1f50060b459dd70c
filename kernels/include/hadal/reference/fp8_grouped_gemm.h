// CPU reference of fp8_grouped_gemm (hadal/fp8_grouped_gemm.h), in double: fp8_gemm per segment.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/fp8_grouped_gemm.h"
#include "hadal/reference/fp8_gemm.h"

namespace hadal::reference {

struct Fp8GroupedGemmInputs {
  const uint8_t* a = nullptr;
  const float* a_scale = nullptr;
  const uint32_t* a_rows = nullptr;                    // [rows]; nullptr = identity
  const std::vector<uint32_t>* expert_ends = nullptr;  // [experts]: end of each expert's segment
  std::vector<const uint8_t*> b;                       // [experts]
  std::vector<const float*> b_scale;                   // [experts]
};

// [rows, n], dense.
[[nodiscard]] ValueAndMagnitude fp8_grouped_gemm(const Fp8GroupedGemmShape& shape,
                                                 const Fp8GroupedGemmInputs& inputs);

}  // namespace hadal::reference
