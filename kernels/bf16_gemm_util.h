// What bf16_gemm.cpp and bf16_grouped_gemm.cpp share. Private.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "hadal/caps.h"
#include "hadal/gemm_path.h"
#include "hadal/status.h"
#include "kernel_util.h"

namespace hadal {

// The rules for k and the strides of a Bf16GemmShape or Bf16GroupedGemmShape.
template <class Shape>
[[nodiscard]] Status check_bf16_operands(std::string_view kernel, const Shape& s,
                                         ElementType a_type) {
  const auto error = [&](const std::string& text) {
    return Status(Errc::kInvalidArgument, fmt::format("{}: {}", kernel, text));
  };
  if (s.k > kMaxGemmK) return error(fmt::format("k must be at most {}, got {}", kMaxGemmK, s.k));
  if (s.a_stride < s.k) {
    return error(fmt::format("a_stride must be at least k, got {} < {}", s.a_stride, s.k));
  }
  const uint32_t a_step = 16 / element_bytes(a_type);
  if (s.a_stride % a_step) {
    return error(fmt::format("a_stride must be a multiple of {} elements (16 bytes), got {}",
                             a_step, s.a_stride));
  }
  if (s.b_stride < s.k) {
    return error(fmt::format("b_stride must be at least k, got {} < {}", s.b_stride, s.k));
  }
  if (s.b_stride % 8) {
    return error(
        fmt::format("b_stride must be a multiple of 8 elements (16 bytes), got {}", s.b_stride));
  }
  if (s.d_stride < s.n) {
    return error(fmt::format("d_stride must be at least n, got {} < {}", s.d_stride, s.n));
  }
  return {};
}

// The scalar path (lib/bf16_gemm_scalar_tile.glsl). Makes `config`, a Bf16GemmConfig or
// Bf16GroupedGemmConfig with tile_m chosen, one of the scalar path where the device has scalar
// uniforms and neither n is narrower than a tile nor k than a step. One column per invocation and
// long steps, by measurement (bf16_gemm.md).
template <class Config>
void try_scalar_path(uint32_t n, uint32_t k, const Caps& caps, Config& config) {
  const uint32_t width = caps.subgroup_size;
  constexpr uint32_t kLongestStep = 32;
  if (k < kLongestStep) return;
  if (!caps.scalar_uniforms || n < width || n / width >= caps.max_workgroup_count[1]) return;
  config.path = GemmPath::kScalar;
  config.workgroup_size = width;
  config.tile_n = 1;
  config.step_k = config.tile_m <= 2 ? 32 : 16;
  config.row_group = config.tile_m < 8 ? config.tile_m : 8;
}

}  // namespace hadal
