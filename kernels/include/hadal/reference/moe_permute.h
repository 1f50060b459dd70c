// CPU reference of moe_permute and moe_combine (hadal/moe_permute.h).
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/moe_permute.h"

namespace hadal::reference {

struct MoePermutePlan {
  struct Tile {
    uint32_t expert, row_begin, row_end;
    bool operator==(const Tile&) const = default;
  };
  std::vector<uint32_t> row_token;     // [sorted rows]
  std::vector<uint32_t> row_of;        // [tokens, top_k]
  std::vector<uint32_t> segment_ends;  // [experts]
  std::vector<Tile> tiles;
};

[[nodiscard]] MoePermutePlan moe_permute(const MoePermuteShape& shape, const uint32_t* indices);

// Dense operands; `x` and `shared` only read where the shape says so.
struct MoeCombineInputs {
  const float* x = nullptr;
  const float* shared = nullptr;
  const float* y = nullptr;
  const uint32_t* row_of = nullptr;
  const float* weights = nullptr;
};

// The result and, element by element, the sum of the magnitudes of its terms.
struct MoeCombineResult {
  std::vector<double> value;      // [tokens, hidden]
  std::vector<double> magnitude;  // [tokens, hidden]
};

[[nodiscard]] MoeCombineResult moe_combine(const MoeCombineShape& shape,
                                           const MoeCombineInputs& inputs);

}  // namespace hadal::reference
