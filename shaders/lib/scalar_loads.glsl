// What the scalar paths of the GEMMs share (CPU drivers that keep uniform values in scalar registers,
// Caps::scalar_uniforms): the workgroup is one subgroup, every load a uniform one. Needs TILE_N before
// the include. Why each piece is as it is, with its measurement: kernels/fp8_gemm.md.

#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require

// Eight bytes of each invocation's row, a stride apart, without a gather: one scalar load per
// invocation, which the compiler joins to a vector.
uint64_t load_b_words(uint64_t first_row, uint64_t stride) {
  uint64_t words = U64In(first_row).v;
  [[unroll]] for (uint lane = 1; lane < gl_WorkGroupSize.x; lane++) {
    first_row += stride;
    uint64_t word = U64In(first_row).v;
    words = gl_SubgroupInvocationID == lane ? word : words;
  }
  return words;
}

// Four bytes each of neighbouring words, one per invocation: a load of one vector.
uint load_words(uint64_t address) {
  uint words = UintIn(address).v;
  [[unroll]] for (uint lane = 1; lane < gl_WorkGroupSize.x; lane++) {
    uint word = UintIn(address + uint64_t(lane * 4)).v;
    words = gl_SubgroupInvocationID == lane ? word : words;
  }
  return words;
}

// The tile's first column: the last tile moves back to end at n, so that no row of b needs a bound;
// the columns that it shares with its neighbour are stored once (the kernels' main). n is at least the
// tile's width.
uint tile_first_column(uint wanted, uint n) {
  return min(wanted, n - gl_WorkGroupSize.x * TILE_N);
}
