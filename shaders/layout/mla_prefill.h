// Everything that kernels/mla_prefill.cpp and shaders/mla_prefill.comp both know.
#ifndef HADAL_LAYOUT_MLA_PREFILL_H_
#define HADAL_LAYOUT_MLA_PREFILL_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kMlaPrefillSpecTile, 10);   // queries per workgroup
HADAL_CONST(kMlaPrefillSpecKeys, 11);   // keys per invocation: 64 / workgroup size
HADAL_CONST(kMlaPrefillSpecPairs, 12);  // pairs of value channels per invocation
HADAL_CONST(kMlaPrefillSpecBatch, 13);  // 1: the sequences are a list

HADAL_CONST(kMlaPrefillFlagFirst, 1);  // the state begins here
HADAL_CONST(kMlaPrefillFlagLast, 2);   // o is divided by l

// One sequence of a batch, in device memory; without a batch the push constants say it.
struct MlaPrefillSequence {
  uint q_row;     // its first row of q, o and state
  uint q_len;
  uint q_begin;   // absolute position of its query 0
  uint kv_row;    // its first row of kv and k_pe
  uint kv_rows;
  uint kv_begin;  // absolute position of the first, a multiple of 64
  uint flags;
};

struct MlaPrefillPush {
  uint64_t q;          // [q_len, heads, nope + rope] float
  uint64_t kv;         // [kv_rows, heads, nope + v] float
  uint64_t k_pe;       // [kv_rows, rope] float
  uint64_t o;          // [q_len, heads, v] float
  uint64_t state;      // [q_len, heads, 2] float: m, l
  uint64_t sequences;  // [sequence_count] MlaPrefillSequence, or 0
  uint64_t scratch;    // areas of lib/attention_lanes.glsl, or 0
  uint q_len;          // of all sequences, as kv_rows
  uint max_q_len;      // of one
  uint sequence_count;
  uint heads;
  uint nope;
  uint rope;
  uint v;
  uint q_row_stride;  // elements, as all strides
  uint q_head_stride;
  uint kv_row_stride;
  uint k_pe_stride;
  uint o_row_stride;
  uint o_head_stride;
  uint q_begin;
  uint kv_begin;
  uint kv_rows;
  uint flags;
  float scale;
};
HADAL_CHECK_SIZE(MlaPrefillPush, 128);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MLA_PREFILL_H_
