#version 460
#extension GL_GOOGLE_include_directive : require
// swiglu over the rows of a tile list (grouped GEMMs, masked or contiguous): the same operations as
// swiglu.comp. One workgroup = one tile (y) and a run of its rows' groups of 128 channels (x), rows one
// after another: as many workgroups as there are tiles, however many rows the operands have.
#include "lib/prelude.glsl"
#include "layout/swiglu.h"
#include "layout/moe_tiles.h"
#include "lib/moe_tiles.glsl"
#include "lib/row.glsl"
#include "lib/silu.glsl"

layout(push_constant, scalar) uniform Push { SwigluTilesPush pc; };

void main() {
  MoeTile tile = moe_tile(pc.tiles, gl_WorkGroupID.y);
  uint n = pc.n, flags = pc.flags;
  uint run = pc.groups_per_workgroup * kFp8Block;
  uint begin = gl_WorkGroupID.x * run, end = min(begin + run, n);
  [[dont_unroll]] for (uint row = tile.row_begin; row < tile.row_end; row++) {
    uint64_t gate_row = pc.gate + uint64_t(row) * pc.gate_stride * 4;
    uint64_t up_row = pc.up + uint64_t(row) * pc.up_stride * 4;
    uint64_t y_row = pc.y + uint64_t(row) * pc.y_stride * 4;
    uint64_t q_row = pc.q + uint64_t(row) * pc.q_stride;
    uint64_t scale_row = pc.scale + uint64_t(row) * pc.scale_stride * 4;
    [[dont_unroll]] for (uint group = begin; group < end; group += kFp8Block) {
      uint c = group + quantize_lane_begin();
      float gate[QUANTIZE_ELEMS], up[QUANTIZE_ELEMS];
      load_row(gate_row, c, n, gate);
      load_row(up_row, c, n, up);
      [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
        precise float y = silu(gate[i]) * up[i];
        gate[i] = y;
      }
      if ((flags & kSwigluFlagWriteY) != 0) store_row(y_row, c, n, gate);
      if ((flags & kSwigluFlagQuantize) != 0) {
        quantize_group(gate, group, n, q_row, scale_row, (flags & kSwigluFlagUe8m0) != 0);
      }
    }
  }
}
