// Choices that mla_prefill and mla_decode share (shaders/lib/attention.glsl). Private.
#pragma once

#include <algorithm>
#include <cstdint>

#include "hadal/caps.h"

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

}  // namespace hadal
