// One function per operation of a layer: the kernels' references on whole matrices, each result
// rounded to float once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "hadal/model/config.h"
#include "hadal/model/reference/model.h"
#include "weights.h"

namespace hadal::model::reference {

// Bytes of a mapped file may lie at any address.
template <class T>
std::vector<T> copy_as(std::span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

inline const uint8_t* codes(const TensorView& tensor) {
  return reinterpret_cast<const uint8_t*>(tensor.bytes.data());
}

// The result of a reference, [rows, columns], as the operation's output.
[[nodiscard]] Matrix rounded(uint32_t rows, uint32_t columns, std::span<const double> values);

// x [m, k] times the transposed weight: [m, n]. FP8 weights quantise x first, unless told not to.
[[nodiscard]] Matrix linear(const Matrix& x, const Linear& weight, const ModelConfig& config,
                            const ReferenceOptions& options = {});

// Rows `begin` to `begin + count` of a weight as numbers [count, k]: codes times block scales.
[[nodiscard]] std::vector<double> dequantise_rows(const Linear& weight, uint32_t begin,
                                                  uint32_t count);

// A bfloat16 or float vector as floats.
[[nodiscard]] std::vector<float> decode_vector(const TensorView& tensor);

[[nodiscard]] Matrix embedding(std::span<const uint32_t> ids, const TensorView& table);
[[nodiscard]] Matrix rms_norm(const Matrix& x, const TensorView& weight, double eps);
[[nodiscard]] Matrix swiglu(const Matrix& gate, const Matrix& up);  // silu(gate) * up
[[nodiscard]] Matrix add(const Matrix& a, const Matrix& b);

// Cosines and sines of consecutive positions, and each row's place among them.
struct RopePositions {
  RopePositions(const ModelConfig& config, uint32_t first, uint32_t count);
  std::vector<float> table;    // [count, rope / 2, 2]
  std::vector<uint32_t> rows;  // 0, 1, ..., count - 1
};

// Rotates, in place, the last qk_rope_head_dim channels of every head.
void rotate_query(Matrix& query, const RopePositions& positions, const ModelConfig& config);

}  // namespace hadal::model::reference
