#include "hadal/reference/rope.h"

#include <cmath>

namespace hadal::reference {

ValueAndMagnitude rope(const RopeShape& s, const RopeInputs& in) {
  ValueAndMagnitude result;
  const size_t count = size_t(s.rows) * s.heads * s.dim;
  result.value.resize(count), result.magnitude.resize(count);
  for (uint32_t r = 0; r < s.rows; ++r) {
    const bool inside = in.positions[r] < s.max_position;
    for (uint32_t h = 0; h < s.heads; ++h) {
      const float* x = in.x + size_t(r) * s.row_stride + size_t(h) * s.head_stride + s.offset;
      const size_t out = (size_t(r) * s.heads + h) * s.dim;
      for (uint32_t i = 0; i < s.dim / 2; ++i) {
        const uint32_t first = s.interleaved ? 2 * i : i;
        const uint32_t second = s.interleaved ? 2 * i + 1 : i + s.dim / 2;
        const float* entry = in.table + size_t(inside ? in.positions[r] : 0) * s.dim + 2 * i;
        const double cos = inside ? double(entry[0]) : double(NAN);
        const double sin = inside ? double(entry[1]) : double(NAN);
        const double a = double(x[first]), b = double(x[second]);
        result.value[out + first] = a * cos - b * sin;
        result.value[out + second] = a * sin + b * cos;
        result.magnitude[out + first] = std::fabs(a * cos) + std::fabs(b * sin);
        result.magnitude[out + second] = std::fabs(a * sin) + std::fabs(b * cos);
      }
    }
  }
  return result;
}

}  // namespace hadal::reference
