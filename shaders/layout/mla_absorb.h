// Everything that kernels/mla_absorb.cpp and shaders/mla_absorb*.comp both know.
#ifndef HADAL_LAYOUT_MLA_ABSORB_H_
#define HADAL_LAYOUT_MLA_ABSORB_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kMlaAbsorbSpecTileM, 10);  // tokens per workgroup
HADAL_CONST(kMlaAbsorbSpecTileN, 11);  // per invocation: rows of w (value), 8-column groups or words (query)
HADAL_CONST(kMlaAbsorbSpecValue, 12);  // 1: value direction, 0: query direction
HADAL_CONST(kMlaAbsorbSpecWBf16, 13);  // 1: w is bfloat16, 0: e4m3 with scales

// Columns of w in a group of the query direction: one 64-bit load of e4m3.
HADAL_CONST(kMlaAbsorbColumns, 8);
// Of the scalar path: rows of w per turn of the query direction, columns per turn of the value direction.
HADAL_CONST(kMlaAbsorbTurnRows, 4);
HADAL_CONST(kMlaAbsorbTurnColumns, 16);

struct MlaAbsorbPush {
  uint64_t source;   // [tokens, heads, nope or rank] float
  uint64_t w;        // [heads * (nope + v), rank] e4m3 or bfloat16
  uint64_t w_scale;  // [ceil(heads * (nope + v) / 128), ceil(rank/128)] float
  uint64_t result;   // [tokens, heads, rank or v] float
  uint tokens;
  uint nope;
  uint v;
  uint rank;
  uint w_stride;        // elements between rows
  uint w_scale_stride;  // elements
  uint in_token_stride;
  uint in_head_stride;
  uint out_token_stride;
  uint out_head_stride;
};
HADAL_CHECK_SIZE(MlaAbsorbPush, 72);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MLA_ABSORB_H_
