// What every GPU path of fp8_grouped_gemm has in common: the tile of the list, and d.
layout(push_constant, scalar) uniform Push { Fp8GroupedGemmPush pc; };

#include "moe_tiles.glsl"

MoeTile path_tile() { return moe_tile(pc.tiles, gl_WorkGroupID.y); }
uint path_a_row(uint i) { return moe_a_row(path_tile(), i, pc.a_rows); }

void path_store(uint i, uint col, float value) {
  MoeTile tile = path_tile();
  uint row = tile.row_begin + i;
  if (row >= tile.row_end) return;
  uint64_t index = uint64_t(row) * pc.d_stride + col;
  if (D_BF16 != 0) {
    U16Out(pc.d + index * 2).v = uint16_t(bf16_encode(value));
  } else {
    FloatOut(pc.d + index * 4).v = value;
  }
}
