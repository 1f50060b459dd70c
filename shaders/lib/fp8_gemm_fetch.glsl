// What the tiled GPU paths of fp8_gemm share: fetching 16-byte pieces of codes into registers. Needs
// BLOCK_K.

// Channels k .. k+15 of a row; zero codes from row_k on (padding may hold NaN). A piece that starts
// inside the row ends inside its stride, which is a multiple of 16.
uvec4 fetch_piece(uint64_t row, uint k, uint row_k) {
  if (k >= row_k) return uvec4(0);
  uvec4 w = Uvec4In(row + k).v;
  uint valid = row_k - k;
  if (valid < 16) {
    [[unroll]] for (uint q = 0; q < 4; q++) {
      uint bytes = valid > 4 * q ? valid - 4 * q : 0;
      if (bytes < 4) w[q] &= (1u << (8 * bytes)) - 1u;
    }
  }
  return w;
}
