#version 460
#extension GL_GOOGLE_include_directive : require
// moe_permute: a stable counting sort of (token, slot) by expert, and what the grouped GEMMs need
// of it. One workgroup does all of it: count (shared atomics, whose order cannot show in a sum),
// scan, then place a workgroup of entries at a time. An entry's place among its step's is the
// number of lower invocations with the same expert, so the order is the entries' own. The entry
// that opens a tile writes it.
#include "lib/prelude.glsl"
#include "layout/moe_permute.h"
#include "layout/moe_tiles.h"
#include "lib/scan.glsl"

layout(push_constant, scalar) uniform Push { MoePermutePush pc; };

layout(buffer_reference, scalar, buffer_reference_align = 4) writeonly buffer MoeTileOut {
  MoeTile v;
};

shared uint next_row[kMoePermuteMaxExperts];   // counts, then where the expert's next entry goes
shared uint row_begin[kMoePermuteMaxExperts + 1];  // each expert's first row, and the end of all
shared uint tile_begin[kMoePermuteMaxExperts];
shared uint step_expert[kMoePermuteMaxWorkgroup];

uint entry_expert(uint entry) {
  return entry < pc.entries ? UintIn(pc.indices + uint64_t(entry) * 4).v : kMoePermuteNoRow;
}

// Turns counts into first rows, first tiles and segment ends. Returns the number of tiles.
uint scan_experts() {
  uint invocations, rows, tiles, row = 0, tile = 0;
  uint rank = exclusive_sum(1, invocations);
  uint share = (pc.experts + invocations - 1) / invocations;  // consecutive experts of one
  uint first = min(rank * share, pc.experts), last = min(first + share, pc.experts);
  for (uint e = first; e < last; e++) {
    row += next_row[e];
    tile += (next_row[e] + pc.tile_m - 1) / pc.tile_m;
  }
  row = exclusive_sum(row, rows);
  tile = exclusive_sum(tile, tiles);
  for (uint e = first; e < last; e++) {
    uint count = next_row[e];
    next_row[e] = row;
    row_begin[e] = row;
    tile_begin[e] = tile;
    row += count;
    tile += (count + pc.tile_m - 1) / pc.tile_m;
    UintOut(pc.segment_ends + uint64_t(e) * 4).v = row;
  }
  if (rank == 0) row_begin[pc.experts] = rows;
  return tiles;
}

// Writes the place of one entry; `row` is its sorted row.
void place(uint entry, uint expert, uint row) {
  UintOut(pc.row_of + uint64_t(entry) * 4).v = row;
  UintOut(pc.row_token + uint64_t(row) * 4).v = entry / pc.top_k;
  uint inside = row - row_begin[expert], tile = inside / pc.tile_m;
  if (tile * pc.tile_m == inside) {
    MoeTileOut(pc.tiles + uint64_t(tile_begin[expert] + tile) * 16).v =
        MoeTile(expert, row, min(row + pc.tile_m, row_begin[expert + 1]), 0);
  }
}

void main() {
  uint lane = gl_LocalInvocationID.x;
  for (uint e = lane; e < pc.experts; e += gl_WorkGroupSize.x) next_row[e] = 0;
  barrier();
  for (uint first = 0; first < pc.entries; first += gl_WorkGroupSize.x) {
    uint expert = entry_expert(first + lane);
    if (expert < pc.experts) atomicAdd(next_row[expert], 1);
  }
  barrier();
  uint tiles = scan_experts();
  for (uint i = lane; i < pc.command_count; i += gl_WorkGroupSize.x) {
    uint64_t command = pc.commands + i * 12;
    UintOut(command).v = i == 0   ? pc.groups_x0
                         : i == 1 ? pc.groups_x1
                         : i == 2 ? pc.groups_x2
                                  : pc.groups_x3;
    UintOut(command + 4).v = tiles;
    UintOut(command + 8).v = 1;
  }
  for (uint first = 0; first < pc.entries; first += gl_WorkGroupSize.x) {
    uint entry = first + lane, expert = entry_expert(entry);
    step_expert[lane] = expert;
    barrier();  // also: everyone sees next_row of the scan, or of the step before
    uint lower = 0, same = 0;
    // kMoePermuteUnroll entries at a time; the workgroup is a multiple of it.
    for (uint j = 0; j < gl_WorkGroupSize.x; j += kMoePermuteUnroll) {
      [[unroll]] for (uint u = 0; u < kMoePermuteUnroll; u++) {
        uint equal = uint(step_expert[j + u] == expert);
        same += equal;
        lower += j + u < lane ? equal : 0;
      }
    }
    bool placed = expert < pc.experts;
    uint row = placed ? next_row[expert] + lower : kMoePermuteNoRow;
    barrier();
    if (placed) {
      if (lower + 1 == same) next_row[expert] = row + 1;  // the last of its expert in this step
      place(entry, expert, row);
    } else if (entry < pc.entries) {
      UintOut(pc.row_of + uint64_t(entry) * 4).v = kMoePermuteNoRow;
    }
  }
}
