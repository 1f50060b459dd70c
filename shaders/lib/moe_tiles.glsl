// Reading the tile list of a grouped GEMM (layout/moe_tiles.h). Everything here is uniform in a workgroup.
layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer MoeTileIn { MoeTile v; };
layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer ExpertWeightIn {
  ExpertWeight v;
};

MoeTile moe_tile(uint64_t tiles, uint index) { return MoeTileIn(tiles + uint64_t(index) * 16).v; }

ExpertWeight expert_weight(uint64_t experts, uint expert) {
  return ExpertWeightIn(experts + uint64_t(expert) * 16).v;
}

// The row of a that row i of a tile multiplies; rows past the tile's end repeat its last one. An empty
// tile's is row 0: a CPU driver may run uniform loads behind a return.
uint moe_a_row(MoeTile tile, uint i, uint64_t a_rows) {
  uint row = tile.row_begin < tile.row_end ? min(tile.row_begin + i, tile.row_end - 1) : 0;
  return a_rows != 0 ? UintIn(a_rows + uint64_t(row) * 4).v : row;
}
