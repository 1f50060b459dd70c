// One function per operation of a layer: the kernels' references on whole matrices, each result
// rounded to float once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/model/config.h"
#include "hadal/model/reference/model.h"
#include "weights.h"

namespace hadal::model::reference {

// x [m, k] times the transposed weight: [m, n]. FP8 weights quantise x first.
[[nodiscard]] Matrix linear(const Matrix& x, const Linear& weight, const ModelConfig& config);

// Rows `begin` to `begin + count` of a weight as numbers [count, k]: codes times block scales.
[[nodiscard]] std::vector<double> dequantise_rows(const Linear& weight, uint32_t begin,
                                                  uint32_t count);

// A bfloat16 or float vector as floats.
[[nodiscard]] std::vector<float> decode_vector(const TensorView& tensor);

[[nodiscard]] Matrix embedding(std::span<const uint32_t> ids, const TensorView& table);
[[nodiscard]] Matrix rms_norm(const Matrix& x, const TensorView& weight, double eps);
[[nodiscard]] Matrix swiglu(const Matrix& gate, const Matrix& up);  // silu(gate) * up
[[nodiscard]] Matrix add(const Matrix& a, const Matrix& b);

// Rotates, in place, the last `rope` channels of every head of `head_dim` channels; row i stands at
// position first_position + i.
void rope(Matrix& x, uint32_t head_dim, uint32_t first_position, const ModelConfig& config);

}  // namespace hadal::model::reference
