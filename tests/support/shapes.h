// Problem sizes shared by tests and benches. Named for what they are: the model's own, or ragged
// ones (primes, one off a tile, all dimensions different).
#pragma once

#include <cstdint>
#include <vector>

namespace hadal::test {

struct GemmSize {
  uint32_t m, n, k;
};

// (n, k) of every linear of DeepSeek-V3's layers.
inline const std::vector<GemmSize>& v3_linear_sizes() {
  static const std::vector<GemmSize> sizes = {{0, 2112, 7168}, {0, 576, 7168},   {0, 24576, 1536},
                                              {0, 32768, 512}, {0, 7168, 16384}, {0, 4096, 7168},
                                              {0, 7168, 2048}};
  return sizes;
}

// Small enough for a CPU driver, nasty enough to lose a tail.
inline const std::vector<GemmSize>& ragged_gemm_sizes() {
  static const std::vector<GemmSize> sizes = {
      {1, 1, 1},     {1, 7, 128},    {2, 3, 127},   {3, 129, 129},  {5, 64, 131},  {7, 61, 8},
      {8, 257, 120}, {13, 127, 256}, {17, 65, 300}, {33, 131, 137}, {67, 31, 259}, {4, 128, 384}};
  return sizes;
}

}  // namespace hadal::test
