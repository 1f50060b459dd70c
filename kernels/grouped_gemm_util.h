// What fp8_grouped_gemm.cpp and bf16_grouped_gemm.cpp share. Private.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/grouped_gemm.h"
#include "hadal/status.h"
#include "layout/moe_tiles.h"

namespace hadal {

static_assert(sizeof(MoeTile) == sizeof(layout::MoeTile));
static_assert(sizeof(ExpertWeight) == sizeof(layout::ExpertWeight));

inline constexpr uint32_t kGroupedGemmLargestTileM = 16;

// Rows per tile from the expected rows per expert, by cost with Poisson-spread rows
// (fp8_grouped_gemm.md); larger where the device allows fewer workgroups. The choice changes no
// bit.
[[nodiscard]] inline uint32_t grouped_gemm_tile_m(uint32_t rows, uint32_t expected_rows,
                                                  uint32_t experts, uint32_t max_tiles) {
  if (expected_rows == 0 || expected_rows > rows) expected_rows = rows;
  const double expected = double(expected_rows) / double(experts ? experts : 1);
  const uint32_t wanted = expected_rows <= 1 || expected <= 1.5 ? 1
                          : expected <= 5.0                     ? 4
                          : expected <= 16.0                    ? 8
                                                                : kGroupedGemmLargestTileM;
  for (uint32_t tile_m : {1u, 4u, 8u}) {
    if (tile_m >= wanted && grouped_gemm_max_tiles(rows, experts, tile_m) <= max_tiles)
      return tile_m;
  }
  return kGroupedGemmLargestTileM;
}

// What a kernel that is dispatched over a tile list takes beside its operands.
[[nodiscard]] inline Status check_tile_list(std::string_view kernel, DeviceAddress tiles,
                                            const Buffer* indirect_buffer,
                                            uint64_t indirect_offset) {
  const auto error = [&](const std::string& text) {
    return Status(Errc::kInvalidArgument, fmt::format("{}: {}", kernel, text));
  };
  if (tiles == 0 || tiles % 4) {
    return error(fmt::format("tiles must be 4-byte aligned, got {:#x}", tiles));
  }
  if (!indirect_buffer || !*indirect_buffer) return error("indirect_buffer must not be null");
  if (indirect_offset % 4) {
    return error(fmt::format("indirect_offset must be a multiple of 4, got {}", indirect_offset));
  }
  if (indirect_buffer->bytes() < 12 || indirect_offset > indirect_buffer->bytes() - 12) {
    return error(fmt::format("indirect_offset must leave 12 bytes of the buffer's {}, got {}",
                             indirect_buffer->bytes(), indirect_offset));
  }
  return {};
}

// Whether the device has a workgroup for each tile of any routing.
template <class Shape>
[[nodiscard]] bool grouped_gemm_tiles_fit(const Shape& s, uint32_t tile_m, const Caps& caps) {
  return grouped_gemm_max_tiles(s.rows, s.experts, tile_m) <= caps.max_workgroup_count[1];
}

// The rules of check() for the groups, before and after those for the operands.
template <class Shape>
[[nodiscard]] Status grouped_gemm_check_rows(std::string_view kernel, const Shape& s) {
  const auto error = [&](std::string_view what) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("{}: {} must be at least 1 for {} rows, got 0", kernel, what, s.rows));
  };
  if (s.rows > 0 && s.experts == 0) return error("experts");
  if (s.rows > 0 && s.tokens == 0) return error("tokens");
  return {};
}
template <class Shape>
[[nodiscard]] Status grouped_gemm_check_tiles(std::string_view kernel, const Shape& s,
                                              const Caps& caps) {
  if (grouped_gemm_tiles_fit(s, kGroupedGemmLargestTileM, caps)) return {};
  return {Errc::kInvalidArgument,
          fmt::format("{}: rows and experts must make at most {} tiles of {} rows, got {}", kernel,
                      caps.max_workgroup_count[1], kGroupedGemmLargestTileM,
                      grouped_gemm_max_tiles(s.rows, s.experts, kGroupedGemmLargestTileM))};
}

// The rules of record() for the arguments and the list's length.
template <class Shape, class Args>
[[nodiscard]] Status grouped_gemm_check_args(std::string_view kernel, const Shape& s,
                                             const Args& args, uint32_t tile_m, const Caps& caps) {
  const auto error = [&](const std::string& text) {
    return Status(Errc::kInvalidArgument, fmt::format("{}: {}", kernel, text));
  };
  if (args.a % 16) return error(fmt::format("a must be 16-byte aligned, got {:#x}", args.a));
  if (args.a_rows == 0 && s.tokens != s.rows) {
    return error(
        fmt::format("tokens must equal rows without a_rows, got {} and {}", s.tokens, s.rows));
  }
  if (args.a_rows % 4) {
    return error(fmt::format("a_rows must be 4-byte aligned, got {:#x}", args.a_rows));
  }
  if (args.expert_table == 0 || args.expert_table % 8) {
    return error(fmt::format("expert_table must be 8-byte aligned, got {:#x}", args.expert_table));
  }
  HADAL_TRY(check_tile_list(kernel, args.tiles, args.indirect_buffer, args.indirect_offset));
  if (!grouped_gemm_tiles_fit(s, tile_m, caps)) {
    return error(fmt::format("tiles of {} rows may be at most {}, got {}", tile_m,
                             caps.max_workgroup_count[1],
                             grouped_gemm_max_tiles(s.rows, s.experts, tile_m)));
  }
  return {};
}

}  // namespace hadal
