#include "hadal/reference/mla_cache_write.h"

#include <algorithm>
#include <cmath>

#include "hadal/reference/rope.h"

namespace hadal::reference {

ValueAndMagnitude mla_cache_write(const MlaCacheWriteShape& s, const MlaCacheWriteInputs& in) {
  RopeShape keys = RopeShape::packed(s.tokens, 1, s.rope, s.max_position);
  keys.offset = s.rank, keys.row_stride = s.y_stride, keys.interleaved = s.interleaved;
  const ValueAndMagnitude rotated = rope(keys, {in.y, in.positions, in.table});

  const size_t width = size_t(s.rank) + s.rope;
  ValueAndMagnitude result;
  result.value.resize(s.tokens * width), result.magnitude.resize(s.tokens * width);
  for (uint32_t t = 0; t < s.tokens; ++t) {
    const float* latent = in.y + size_t(t) * s.y_stride;
    double sum = 0.0;
    for (uint32_t c = 0; c < s.rank; ++c) sum += double(latent[c]) * double(latent[c]);
    const double scale = 1.0 / std::sqrt(sum / s.rank + double(s.eps));
    for (uint32_t c = 0; c < s.rank; ++c) {
      const double value = double(latent[c]) * scale * double(in.weight[c]);
      result.value[t * width + c] = value;
      result.magnitude[t * width + c] = std::fabs(value);
    }
    for (uint32_t c = 0; c < s.rope; ++c) {
      result.value[t * width + s.rank + c] = rotated.value[size_t(t) * s.rope + c];
      result.magnitude[t * width + s.rank + c] = rotated.magnitude[size_t(t) * s.rope + c];
    }
  }
  return result;
}

}  // namespace hadal::reference
