// What fp8_grouped_gemm.cpp and bf16_grouped_gemm.cpp share. Private.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "hadal/buffer.h"
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

// The addresses that both kernels take beside their operands.
[[nodiscard]] inline Status grouped_gemm_check_lists(std::string_view kernel, DeviceAddress a_rows,
                                                     DeviceAddress expert_table,
                                                     DeviceAddress tiles,
                                                     const Buffer* indirect_buffer,
                                                     uint64_t indirect_offset) {
  const auto error = [&](const std::string& text) {
    return Status(Errc::kInvalidArgument, fmt::format("{}: {}", kernel, text));
  };
  if (a_rows % 4) return error(fmt::format("a_rows must be 4-byte aligned, got {:#x}", a_rows));
  if (expert_table == 0 || expert_table % 8) {
    return error(fmt::format("expert_table must be 8-byte aligned, got {:#x}", expert_table));
  }
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

}  // namespace hadal
