// What mla_prefill's paths with tiles of queries in shared memory know of a workgroup: one head (x) and ROWS
// consecutive queries (y) of a sequence (z). Needs pc and what lib/attention_keys.glsl needs.
#include "attention_keys.glsl"

uint64_t queries;             // the head's part of the tile's first query
uint rows;                    // queries of the tile
uint first_position;          // of its first query
uint block_begin, block_end;  // keys of the block

// Strides are even, c a multiple of 4.
vec4 path_query4(uint row, uint c) {
  if (row >= rows) return vec4(0.0);
  return attention_key4(queries + (uint64_t(row) * pc.q_row_stride + c) * 4);
}
uint path_limit(uint row) {
  uint visible = min(block_end, first_position + row + 1);
  return min(max(visible, block_begin) - block_begin, kKvPageTokens);
}

// The block from `block` on, of a tile that sees keys up to `end`.
AttentionKeys begin_block(MlaPrefillSequence sequence, uint head, uint block, uint end) {
  block_begin = block;
  block_end = min(block + kKvPageTokens, end);
  uint64_t row = sequence.kv_row + (block - sequence.kv_begin);
  AttentionKeys keys;
  keys.a = pc.kv + (row * pc.kv_row_stride + uint64_t(head) * (pc.nope + pc.v)) * 4;
  keys.b = pc.k_pe + row * pc.k_pe_stride * 4;
  keys.value = keys.a + pc.nope * 4;
  keys.scales = 0;
  keys.a_stride = keys.value_stride = pc.kv_row_stride * 4;
  keys.b_stride = pc.k_pe_stride * 4;
  return keys;
}
