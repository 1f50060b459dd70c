// Choices that mla_prefill and mla_decode share (shaders/lib/attention.glsl). Private.
#pragma once

#include <algorithm>
#include <cstdint>

#include "hadal/attention_lanes.h"
#include "hadal/caps.h"
#include "layout/attention_lanes.h"
#include "layout/kv_page.h"

namespace hadal {

// Invocations of an attention workgroup: they hold the 64 keys of a block in one phase, `channels`
// value channels, two each, in the other. One subgroup where that suffices: no barriers then.
[[nodiscard]] inline uint32_t attention_workgroup_size(const Caps& caps, uint32_t channels) {
  uint32_t size = 4;
  while (size < caps.subgroup_size && size < 64) size *= 2;
  // Up to 8 channels per invocation 16 rows share each load; with more, fewer rows fit. V3's decode
  // (512 channels) is 2 to 3 times faster over four subgroups, barriers included (mla_decode.md).
  while (size < 64 && channels > 8 * size) size *= 2;
  return size;
}

// The most rows, halved from `wanted`, whose accumulators stay within 128 (values) and 64 (scores).
[[nodiscard]] inline uint32_t attention_tile(uint32_t workgroup_size, uint32_t pairs,
                                             uint32_t wanted) {
  uint32_t tile = wanted;
  while (tile > 1 && (tile * pairs * 2 > 128 || tile * (64 / workgroup_size) > 64)) tile /= 2;
  return tile;
}

// lib/attention_lanes.glsl: its workers at most, each with an area of scratch. Enough for every
// core of a CPU several times over, so that long and short sequences share them evenly.
inline constexpr uint32_t kAttentionWorkers = 64;
inline constexpr uint32_t kAttentionLaneRows = 32;  // rows of a worker at most

// Whether the driver's invocations are lanes whose workgroup is one subgroup.
[[nodiscard]] inline bool attention_lanes_run(const Caps& caps) {
  return caps.is_cpu && caps.scalar_uniforms && caps.subgroup_size >= 4 && caps.subgroup_size <= 16;
}

// Tiles of 16 accumulators, measured (mla_decode.md).
[[nodiscard]] inline AttentionLanes attention_lanes(const Caps& caps, uint32_t rows) {
  AttentionLanes lanes;
  lanes.vectors = rows > caps.subgroup_size ? 2 : 1;
  lanes.tile_keys = lanes.vectors == 1 ? 16 : 8, lanes.tile_channels = 8, lanes.run = 4;
  return lanes;
}

// Bytes of `workers` areas whose keys have key_channels and whose values value_channels, for any
// configuration, and of the alignment of the first.
[[nodiscard]] inline uint64_t attention_area_bytes(uint64_t workers, uint64_t key_channels,
                                                   uint64_t value_channels) {
  const uint64_t run = uint64_t{kAttentionLanesMaxRun} * (layout::kKvPageTokens + 1);
  return workers * (key_channels + value_channels + run) * kAttentionLaneRows * 4 + 64;
}

}  // namespace hadal
