// CPU reference of embedding (hadal/embedding.h); exact.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/embedding.h"

namespace hadal::reference {

// [tokens, hidden], dense. y_stride of `shape` is not used.
[[nodiscard]] std::vector<float> embedding(const EmbeddingShape& shape, const uint32_t* ids,
                                           const uint16_t* table);

}  // namespace hadal::reference
