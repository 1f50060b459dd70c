#version 460
#extension GL_GOOGLE_include_directive : require
// moe_permute for CPU drivers: one workgroup, one subgroup, whose invocations are the lanes of a vector
// and go in step, so that shared memory needs no barrier, which would make a coroutine of the shader.
// The first pass counts and leaves in row_of each entry's rank among its expert's; the scan turns counts
// into first rows; the second pass adds the two. Tiles are written apart, one per invocation, each found
// by bisection. Same plan as moe_permute.comp, which is unique.
#include "lib/prelude.glsl"
#include "layout/moe_permute.h"
#include "layout/moe_tiles.h"

#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_arithmetic : require

layout(push_constant, scalar) uniform Push { MoePermutePush pc; };

const uint LANES = gl_WorkGroupSize.x;
const uint SEARCHES = 4;

// An index that names no expert counts at [experts].
shared uint count[kMoePermuteMaxExperts + 1];      // then each expert's first row, and the end of all
shared uint tile_begin[kMoePermuteMaxExperts];

// As in row_vectors.glsl: a loop's position is scalar where it is read from a vector's known lane.
uint start_at(uint position) { return position + gl_SubgroupInvocationID; }
uint position_of(uint cursor) { return subgroupBroadcast(cursor, 0); }

// Not the readonly view, for the first pass's results are read back.
uint load_vector(uint64_t address) {
  uint result = 0;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    uint word = UintOut(address + lane * 4ul).v;
    result = gl_SubgroupInvocationID == lane ? word : result;
  }
  return result;
}

// x / d for x < 2^18, by way of floats, corrected: a CPU has no vector division of integers, and this
// driver converts to integers one by one, so the quotient is rounded by adding 2^23.
uint divide(uint x, uint d, float inverse) {
  precise float rounded = float(x) * inverse + 8388608.0;
  uint q = floatBitsToUint(rounded) & 0x7fffffu;
  int rest = int(x - q * d);
  return rest < 0 ? q - 1 : rest >= int(d) ? q + 1 : q;
}

// The expert counter of an index.
uint counter_of(uint index) { return min(index, pc.experts); }

// Counts a step's entries; returns each one's rank among those of its counter.
uint count_step(uint counter) {
  uint equal = 0;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    equal |= subgroupBroadcast(counter, lane) == counter ? 1u << lane : 0;
  }
  uint before = count[counter];
  // Every invocation of a counter writes the same sum.
  count[counter] = before + bitCount(equal);
  return before + bitCount(equal & ((1u << gl_SubgroupInvocationID) - 1));
}

void main() {
  uint lane = gl_SubgroupInvocationID;
  float inverse_top_k = 1.0 / float(max(pc.top_k, 1)), inverse_tile = 1.0 / float(pc.tile_m);
  for (uint e = lane; e < pc.experts + 1; e += LANES) count[e] = 0;

  // 1. Count and rank.
  uint whole_end = pc.entries / LANES * LANES;
  uint cursor = start_at(0);
  if (whole_end > 0) [[dont_unroll]] do {
    uint64_t offset = uint64_t(position_of(cursor)) * 4ul;
    uint rank = count_step(counter_of(load_vector(pc.indices + offset)));
    UintOut(pc.row_of + offset + lane * 4ul).v = rank;
    cursor += LANES;
  } while (position_of(cursor) < whole_end);
  [[dont_unroll]] while (position_of(cursor) < pc.entries) {  // once at most
    uint64_t offset = uint64_t(cursor) * 4ul;
    bool exists = cursor < pc.entries;
    uint index = kMoePermuteNoRow;
    if (exists) index = UintIn(pc.indices + offset).v;
    uint rank = count_step(counter_of(index));
    if (exists) UintOut(pc.row_of + offset).v = rank;
    cursor += LANES;
  }

  // 2. Scan: each invocation has consecutive experts.
  uint share = (pc.experts + LANES - 1) / LANES;
  uint first = min(lane * share, pc.experts), last = min(first + share, pc.experts);
  uint row = 0, tile = 0;
  [[dont_unroll]] for (uint e = first; e < last; e++) {
    row += count[e];
    tile += divide(count[e] + pc.tile_m - 1, pc.tile_m, inverse_tile);
  }
  uint rows = subgroupAdd(row), tiles = subgroupAdd(tile);
  row = subgroupExclusiveAdd(row);
  tile = subgroupExclusiveAdd(tile);
  [[dont_unroll]] for (uint e = first; e < last; e++) {
    uint n = count[e];
    count[e] = row;
    tile_begin[e] = tile;
    row += n;
    tile += divide(n + pc.tile_m - 1, pc.tile_m, inverse_tile);
    UintOut(pc.segment_ends + uint64_t(e) * 4).v = row;
  }
  if (lane < pc.command_count) {
    uint64_t command = pc.commands + lane * 12;
    UintOut(command).v = lane == 0   ? pc.groups_x0
                         : lane == 1 ? pc.groups_x1
                         : lane == 2 ? pc.groups_x2
                                     : pc.groups_x3;
    UintOut(command + 4).v = tiles;
    UintOut(command + 8).v = 1;
  }
  count[pc.experts] = rows;  // an end for the last tile

  // 3. Tiles: each one's expert is the last whose first tile is not behind it. Several are searched for
  // at once, because a search waits for its own results.
  uint top = 1u << findMSB(max(pc.experts, 2) - 1);
  cursor = start_at(0);
  [[dont_unroll]] while (position_of(cursor) < tiles) {
    uint expert[SEARCHES];
    [[unroll]] for (uint i = 0; i < SEARCHES; i++) expert[i] = 0;
    [[dont_unroll]] for (uint reach = top; reach > 0; reach /= 2) {
      [[unroll]] for (uint i = 0; i < SEARCHES; i++) {
        uint middle = expert[i] + reach;
        bool right = tile_begin[min(middle, pc.experts - 1)] <= cursor + i * LANES;
        expert[i] = right && middle < pc.experts ? middle : expert[i];
      }
    }
    [[unroll]] for (uint i = 0; i < SEARCHES; i++) {
      uint t = cursor + i * LANES;
      if (t < tiles) {
        uint begin = count[expert[i]] + (t - tile_begin[expert[i]]) * pc.tile_m;
        uint64_t address = pc.tiles + uint64_t(t) * 16;
        UintOut(address).v = expert[i];
        UintOut(address + 4).v = begin;
        UintOut(address + 8).v = min(begin + pc.tile_m, count[expert[i] + 1]);
        UintOut(address + 12).v = 0;
      }
    }
    cursor += SEARCHES * LANES;
  }

  // 4. Place.
  cursor = start_at(0);
  if (whole_end > 0) [[dont_unroll]] do {
    uint64_t offset = uint64_t(position_of(cursor)) * 4ul;
    uint index = load_vector(pc.indices + offset);
    bool placed = index < pc.experts;
    uint to = count[counter_of(index)] + load_vector(pc.row_of + offset);
    UintOut(pc.row_of + offset + lane * 4ul).v = placed ? to : kMoePermuteNoRow;
    if (placed) {
      UintOut(pc.row_token + uint64_t(to) * 4).v = divide(cursor, pc.top_k, inverse_top_k);
    }
    cursor += LANES;
  } while (position_of(cursor) < whole_end);
  [[dont_unroll]] while (position_of(cursor) < pc.entries) {
    uint64_t offset = uint64_t(cursor) * 4ul;
    if (cursor < pc.entries) {
      uint index = UintIn(pc.indices + offset).v;
      bool placed = index < pc.experts;
      uint to = count[counter_of(index)] + UintOut(pc.row_of + offset).v;
      UintOut(pc.row_of + offset).v = placed ? to : kMoePermuteNoRow;
      if (placed) {
        UintOut(pc.row_token + uint64_t(to) * 4).v = divide(cursor, pc.top_k, inverse_top_k);
      }
    }
    cursor += LANES;
  }
}
