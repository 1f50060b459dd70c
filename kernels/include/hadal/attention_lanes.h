// How the attention kernels lay rows into the lanes of a CPU's vectors
// (shaders/lib/attention_lanes.glsl): part of their configurations.
#pragma once

#include <cstdint>

namespace hadal {

inline constexpr uint32_t kAttentionLanesMaxRun = 4;

struct AttentionLanes {
  uint32_t vectors = 0;        // vectors of rows per workgroup; 0: another path
  uint32_t tile_keys = 0;      // keys of a register tile
  uint32_t tile_channels = 0;  // value channels of a register tile
  uint32_t run = 0;            // blocks of 64 keys weighed before their values are added
  [[nodiscard]] explicit operator bool() const { return vectors != 0; }
};

}  // namespace hadal
