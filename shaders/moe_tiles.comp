#version 460
#extension GL_GOOGLE_include_directive : require
// moe_tiles: the tile list of a grouped GEMM from the segments of its rows. One workgroup = a run of
// kMoeTilesPerWorkgroup tiles: every workgroup counts and scans the tiles of all experts (invocations
// take consecutive experts), then each of its tiles finds its expert by bisection, so that a giant
// segment is spread over the invocations. The first workgroup writes the commands.
#include "lib/prelude.glsl"
#include "layout/moe_tiles.h"
#include "lib/scan.glsl"

layout(push_constant, scalar) uniform Push { MoeTilesPush pc; };

layout(buffer_reference, scalar, buffer_reference_align = 4) writeonly buffer MoeTileOut {
  MoeTile v;
};

shared uint tile_begin[kMoeTilesMaxExperts];  // the expert's first tile; ascending

// First row and end of an expert's rows, never past what the host declared.
uvec2 segment(uint e) {
  uint64_t entry = pc.segments + uint64_t(e) * 4;
  uint value = UintIn(entry).v;
  if (pc.m_max != 0) return uvec2(e * pc.m_max, e * pc.m_max + min(value, pc.m_max));
  uint begin = 0;
  if (e > 0) begin = min(UintIn(entry - 4).v, pc.rows);
  return uvec2(begin, max(begin, min(value, pc.rows)));
}

uint segment_tiles(uint e) {
  uvec2 rows = segment(e);
  uint count = rows.y - rows.x;
  return count / pc.tile_m + uint(count % pc.tile_m != 0);
}

// Fills tile_begin. Returns the number of tiles.
uint scan_tiles() {
  uint invocations, tiles, tile = 0;
  uint rank = exclusive_sum(1, invocations);
  uint share = (pc.experts + invocations - 1) / invocations;  // consecutive experts of one
  uint first = min(rank * share, pc.experts), last = min(first + share, pc.experts);
  for (uint e = first; e < last; e++) tile += segment_tiles(e);
  tile = exclusive_sum(tile, tiles);
  for (uint e = first; e < last; e++) {
    tile_begin[e] = tile;
    tile += segment_tiles(e);
  }
  barrier();
  return tiles;
}

void main() {
  uint lane = gl_LocalInvocationID.x;
  // More tiles than the capacity only where ends do not ascend, which the contract excludes.
  uint tiles = min(scan_tiles(), pc.max_tiles);
  if (gl_WorkGroupID.x == 0 && lane == 0) {
    for (uint i = 0; i < pc.command_count; i++) {
      uint64_t command = pc.commands + i * 12;
      UintOut(command).v = i == 0   ? pc.groups_x0
                           : i == 1 ? pc.groups_x1
                           : i == 2 ? pc.groups_x2
                                    : pc.groups_x3;
      UintOut(command + 4).v = tiles;
      UintOut(command + 8).v = 1;
    }
  }
  uint begin = gl_WorkGroupID.x * kMoeTilesPerWorkgroup;
  uint end = min(begin + kMoeTilesPerWorkgroup, tiles);
  for (uint tile = begin + lane; tile < end; tile += gl_WorkGroupSize.x) {
    // The last expert whose tiles begin here or before: of several it is the one that has tiles.
    uint expert = 0;
    [[unroll]] for (uint jump = kMoeTilesMaxExperts / 2; jump > 0; jump /= 2) {
      uint next = expert + jump;
      if (next < pc.experts && tile_begin[next] <= tile) expert = next;
    }
    uvec2 rows = segment(expert);
    uint row = rows.x + (tile - tile_begin[expert]) * pc.tile_m;
    MoeTileOut(pc.tiles + uint64_t(tile) * 16).v =
        MoeTile(expert, row, row + min(pc.tile_m, rows.y - row), 0);
  }
}
