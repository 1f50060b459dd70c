// Small helpers that every <kernel>.cpp uses. Private.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/types.h"

namespace hadal {

// Bytes from the first row's start to the last row's end of a [rows, width] array.
[[nodiscard]] constexpr uint64_t strided_bytes(uint64_t rows, uint64_t width, uint64_t stride,
                                               uint64_t element_bytes) {
  return rows == 0 || width == 0 ? 0 : ((rows - 1) * stride + width) * element_bytes;
}

template <class Push>
[[nodiscard]] std::span<const std::byte> push_bytes(const Push& push) {
  return {reinterpret_cast<const std::byte*>(&push), sizeof(Push)};
}

// Longest inner dimension of a GEMM: keeps byte offsets inside a row far from 32 bits.
inline constexpr uint32_t kMaxGemmK = 1u << 24;

// Workgroup for kernels whose invocations lie along columns: one subgroup on a CPU driver, where a
// second one only adds state; on GPUs 64, enough to fill a wave of any vendor.
[[nodiscard]] inline uint32_t column_workgroup_size(const Caps& caps) {
  const uint32_t wanted = caps.is_cpu ? caps.subgroup_size : 64;
  return wanted < caps.max_workgroup_invocations ? wanted : caps.max_workgroup_invocations;
}

// Workgroup for kernels that walk a row in groups of 128 channels (lib/quantize.glsl): a power of
// two from 4 to 32, one subgroup where the device's are that small, so that reductions need no
// barrier.
[[nodiscard]] inline uint32_t row_workgroup_size(const Caps& caps) {
  uint32_t size = 32;
  while (size > 4 && size > caps.subgroup_size) size /= 2;
  return size;
}

// Whether kernels move rows as vectors (shaders/lib/row_vectors.glsl): where a workgroup can be one
// subgroup and uniform loads are scalar ones. Such kernels have their rows on y.
[[nodiscard]] inline bool row_vectors(const Caps& caps) {
  return caps.is_cpu && caps.scalar_uniforms && caps.subgroup_size >= 4 &&
         caps.subgroup_size <= 16 && caps.max_workgroup_count[1] >= caps.max_workgroup_count[0];
}

// Groups of 128 channels that one workgroup of an elementwise row kernel walks: a GPU wants many
// small workgroups, a CPU driver few of them, each long enough to hide its start.
[[nodiscard]] inline uint32_t groups_per_workgroup(const Caps& caps) {
  return caps.is_cpu ? 16 : 1;
}

// Why a matrix product does not take the cooperative-matrix path, for Config::rejected.
[[nodiscard]] inline std::string_view coopmat_rejection(const Caps& caps) {
  return caps.cooperative_matrix ? "coopmat: not implemented yet"
                                 : "coopmat: the device has no VK_KHR_cooperative_matrix";
}

// The scales' form for a Config's line; nothing where it is the checkpoint's.
[[nodiscard]] inline std::string scale_form_text(const Fp8ScaleForm& form) {
  if (form == Fp8ScaleForm{}) return {};
  const auto name = [](ScaleType type) { return type == ScaleType::kF32 ? "f32" : "e8m0"; };
  return fmt::format(", scales {} 1x128 and {} {}x128", name(form.a_type), name(form.b_type),
                     form.b_rows);
}

// Spec constant kFp8...SpecBScaleShift.
[[nodiscard]] inline uint32_t b_scale_shift(const Fp8ScaleForm& form) {
  return form.b_rows == 1 ? 0 : 7;
}

// Longest row of those kernels: 32768 groups, inside every device's workgroup count.
inline constexpr uint32_t kMaxRowElems = 1u << 22;

}  // namespace hadal
