// Numbers as the targets of the engine's C ABI want them: mostly small, some at an edge.
#pragma once

#include <bit>
#include <cstdint>
#include <iterator>

#include "fuzz/bytes.h"

namespace hadal::fuzz {

inline uint64_t number(ByteSource& random) {
  static constexpr uint64_t kEdges[] = {
      0,    1,    2,          63,         64,         65,         255,   256,       257,
      2047, 2048, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32, ~0ull, ~0ull >> 1};
  switch (random() % 3) {
    case 0: return kEdges[random() % std::size(kEdges)];
    case 1: return random() % 300;
    default: return uint64_t{random()} << random() % 33 >> random() % 64;
  }
}

inline float real(ByteSource& random) {
  switch (random() % 4) {
    case 0: return std::bit_cast<float>(random());
    case 1: return 0.0f;
    default: return float(int(random() % 400) - 100) / 100.0f;
  }
}

}  // namespace hadal::fuzz
