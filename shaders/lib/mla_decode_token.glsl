// What the shaders of mla_decode know of a token. Needs pc.
#ifndef HADAL_MLA_DECODE_TOKEN_GLSL_
#define HADAL_MLA_DECODE_TOKEN_GLSL_

uint heads() { return pc.heads_q_len & 0xffffu; }
uint q_len() { return pc.heads_q_len >> 16; }

// Token t is query t % q_len of sequence t / q_len, and sees the sequence's keys but those of the
// queries behind it.
uint token_keys(uint token) {
  uint sequence = token / q_len(), behind = q_len() - 1 - token % q_len();
  uint kv_len = min(UintIn(pc.kv_lens + uint64_t(sequence) * 4ul).v, pc.max_kv_len);
  return max(kv_len, behind) - behind;
}
uint64_t token_table(uint token) {
  return pc.block_tables + uint64_t(token / q_len()) * uint64_t(pc.table_stride) * 4ul;
}

#endif  // HADAL_MLA_DECODE_TOKEN_GLSL_
