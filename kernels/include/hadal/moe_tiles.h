// moe_tiles: the tile list and the indirect commands of the grouped GEMMs, made on the device from
// where each expert's rows lie. For whoever sorts rows by other means than moe_permute, which makes
// its list itself.
//
//   segments  uint32 [experts]. Contiguous form: ends, the row behind each expert's last one,
//             ascending, expert e's rows are ends[e-1] (0 for e = 0) .. ends[e]-1 of `rows`.
//             Masked form: counts, expert e's rows are the first counts[e] of the m_max rows from
//             e * m_max on, operands [experts, m_max, ...] seen as experts * m_max rows.
//   tiles     MoeTile [moe_tiles_max_tiles] (grouped_gemm.h): at most tile_m rows, never across a
//             segment's end, in order of expert and row; experts without rows have none
//   commands  VkDispatchIndirectCommand [command_count]: {groups_x[i], number of tiles, 1}
//
// Requirements: addresses multiples of 4; the rules of the check function. An end above `rows`
// counts as `rows`, a count above m_max as m_max; ends that descend give tiles inside `rows`, but
// not each row once. Zero experts or rows give commands of no tiles.
//
// Contract: reads segments, writes commands and the tiles of the list; those behind it keep their
// content. No scratch. Thread-safe as fp8_gemm. Determinism: the list is exact and unique. A
// command buffer that records moe_tiles, a barrier and the GEMMs serves every routing of its shape.
//
// Source: DeepGEMM's m_grouped_fp8_gemm_nt_contiguous (psum layout) and _masked, whose kernels
// search for their tile themselves.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct MoeTilesShape {
  uint32_t experts = 0;
  uint32_t rows = 0;   // of all experts; masked: experts * m_max
  uint32_t m_max = 0;  // masked: rows that each expert may have
  bool masked = false;
  uint32_t tile_m = 1;         // the grouped GEMM configuration's
  uint32_t command_count = 0;  // GEMMs that will run over the tiles, at most 4
  std::array<uint32_t, 4> groups_x{};

  [[nodiscard]] static MoeTilesShape contiguous(uint32_t rows, uint32_t experts, uint32_t tile_m);
  [[nodiscard]] static MoeTilesShape masked_groups(uint32_t experts, uint32_t m_max,
                                                   uint32_t tile_m);
};

struct MoeTilesArgs {
  DeviceAddress segments = 0, tiles = 0, commands = 0;
};

struct MoeTilesConfig {
  uint32_t workgroup_size = 0;
  [[nodiscard]] std::string to_string() const;
};

// Most tiles that any routing of the shape can make: the capacity of the list.
[[nodiscard]] uint32_t moe_tiles_max_tiles(const MoeTilesShape& shape);

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status moe_tiles_check(const MoeTilesShape& shape, const Caps& caps);
[[nodiscard]] MoeTilesConfig moe_tiles_choose(const MoeTilesShape& shape, const Caps& caps);

class MoeTiles {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<MoeTiles> create(Device& device, const MoeTilesConfig& config);
  // Records one dispatch. Errors: those of check; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MoeTilesShape& shape,
                              const MoeTilesArgs& args) const;

 private:
  MoeTiles(const Device& device, const vk::Pipeline* pipeline);
  const Device* device_;
  const vk::Pipeline* pipeline_;
};

}  // namespace hadal
