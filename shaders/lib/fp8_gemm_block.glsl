// What ends a block of 128 channels in both forms of fp8_gemm_tile. Needs TILE_M, TILE_N and
// lib/fp8_scale.glsl before the include.

// acc += t * (a_scale * b_scale): one scaled addition per block, whatever the tile.
void add_scaled_block(float t[TILE_M][TILE_N], uint64_t a_scale_row[TILE_M],
                      uint64_t b_scale_row[TILE_N], uint kb, inout float acc[TILE_M][TILE_N]) {
  const float rescale = 65536.0;  // the decoders leave 2^-8 per operand; a power of two, so exact
  float sb[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) sb[j] = b_scale_at(b_scale_row[j], kb);
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    float sa = a_scale_at(a_scale_row[i], kb);
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      precise float scale = sa * sb[j];
      acc[i][j] = mac(t[i][j], scale * rescale, acc[i][j]);
    }
  }
}
