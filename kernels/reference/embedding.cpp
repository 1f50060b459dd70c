#include "hadal/reference/embedding.h"

#include <cstddef>
#include <limits>

#include "hadal/reference/formats.h"

namespace hadal::reference {

std::vector<float> embedding(const EmbeddingShape& s, const uint32_t* ids, const uint16_t* table) {
  std::vector<float> y;
  y.reserve(size_t(s.tokens) * s.hidden);
  for (uint32_t t = 0; t < s.tokens; ++t) {
    for (uint32_t c = 0; c < s.hidden; ++c) {
      y.push_back(ids[t] < s.vocab ? bf16_decode(table[size_t(ids[t]) * s.table_stride + c])
                                   : std::numeric_limits<float>::quiet_NaN());
    }
  }
  return y;
}

}  // namespace hadal::reference
