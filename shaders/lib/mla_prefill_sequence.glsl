// Which queries and keys a sequence of mla_prefill's call has. Needs pc and BATCH, a spec constant: some
// drivers load from the list even in a branch that is not taken.
#ifndef HADAL_MLA_PREFILL_SEQUENCE_GLSL_
#define HADAL_MLA_PREFILL_SEQUENCE_GLSL_

layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer MlaPrefillSequenceIn {
  MlaPrefillSequence v;
};

// A sequence that would leave the operands has no queries.
MlaPrefillSequence mla_prefill_sequence(uint index) {
  MlaPrefillSequence s =
      MlaPrefillSequence(0, pc.q_len, pc.q_begin, 0, pc.kv_rows, pc.kv_begin, pc.flags);
  if (BATCH != 0) {
    s = MlaPrefillSequenceIn(pc.sequences + uint64_t(index) * 28ul).v;
    bool inside = s.q_row <= pc.q_len && s.q_len <= pc.q_len - s.q_row && s.q_len <= pc.max_q_len &&
                  s.kv_row <= pc.kv_rows && s.kv_rows <= pc.kv_rows - s.kv_row &&
                  s.kv_begin % kKvPageTokens == 0;
    if (!inside) s.q_len = 0;
  }
  return s;
}

#endif  // HADAL_MLA_PREFILL_SEQUENCE_GLSL_
