// What mla_decode's paths with tiles of heads in shared memory know of a workgroup: ROWS heads (x) of one
// split of 1,024 keys (y) of one token (z). Needs pc, FORMAT.
#include "mla_decode_token.glsl"

// Of the workgroup's token and head 0.
uint64_t queries_a, queries_b;
uint head_begin, block_keys;

vec4 path_query4(uint row, uint c) {
  uint head = head_begin + row;
  if (head >= heads()) return vec4(0.0);
  uint64_t q = c < pc.rank ? queries_a + (uint64_t(head) * pc.q_latent_head_stride + c) * 4
                           : queries_b + (uint64_t(head) * pc.q_pe_head_stride + (c - pc.rank)) * 4;
  return vec4(FloatIn(q).v, FloatIn(q + 4).v, FloatIn(q + 8).v, FloatIn(q + 12).v);
}
uint path_limit(uint row) { return block_keys; }

void begin_token(uint token, uint first_head) {
  queries_a = pc.q_latent + uint64_t(token) * pc.q_latent_row_stride * 4;
  queries_b = pc.q_pe + uint64_t(token) * pc.q_pe_row_stride * 4;
  head_begin = first_head;
}
