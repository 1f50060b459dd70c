// What the hosts of lib/attention_coopmat.glsl know of it. kernels/attention_paths.cpp chooses tiles by
// the same macros that size the shader's arrays.
#ifndef HADAL_LAYOUT_ATTENTION_COOPMAT_H_
#define HADAL_LAYOUT_ATTENTION_COOPMAT_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kAttentionCoopSpecRows, 20);          // queries or heads per workgroup
HADAL_CONST(kAttentionCoopSpecSlice, 21);         // key channels staged at a time
HADAL_CONST(kAttentionCoopSpecSubgroups, 22);     // per workgroup
HADAL_CONST(kAttentionCoopSpecSubgroupSize, 23);
HADAL_CONST(kAttentionCoopSpecValueMats, 24);     // matrices of value channels per subgroup
HADAL_CONST(kAttentionCoopSpecCoopM, 25);         // the cooperative matrix shape
HADAL_CONST(kAttentionCoopSpecCoopN, 26);
HADAL_CONST(kAttentionCoopSpecCoopK, 27);

// Macros, because GLSL sizes arrays by expressions of specialisation constants, not by functions.
#define HADAL_ATTENTION_COOP_MAX(a, b) ((a) > (b) ? (a) : (b))

// Halves from row to row of a staged tile: 16 bytes of padding spread the rows over the banks and keep
// every matrix 16-byte aligned.
#define HADAL_ATTENTION_COOP_ROW(channels) ((channels) + 8)
// Halves: a slice of 64 keys and of the rows' queries, or of 64 values.
#define HADAL_ATTENTION_COOP_STAGE(rows, slice, value_slice)                    \
  HADAL_ATTENTION_COOP_MAX((64 + (rows)) * HADAL_ATTENTION_COOP_ROW(slice),     \
                           64 * HADAL_ATTENTION_COOP_ROW(value_slice))
// Floats from row to row of the scores.
#define HADAL_ATTENTION_COOP_SCORE_ROW 68
// Floats: the scores of 64 keys, or one matrix per subgroup on its way from or to memory.
#define HADAL_ATTENTION_COOP_SCORES(rows, subgroups, coop_m, coop_n)            \
  HADAL_ATTENTION_COOP_MAX((rows) * HADAL_ATTENTION_COOP_SCORE_ROW, (subgroups) * (coop_m) * (coop_n))
// Halves: the weights of 64 keys.
#define HADAL_ATTENTION_COOP_WEIGHTS(rows) ((rows) * HADAL_ATTENTION_COOP_ROW(64))
// A row's m, l, factors and largest query; the largest of 64 keys and values.
#define HADAL_ATTENTION_COOP_SHARED_BYTES(rows, slice, value_slice, subgroups, coop_m, coop_n) \
  (2 * HADAL_ATTENTION_COOP_STAGE(rows, slice, value_slice) +                                  \
   4 * HADAL_ATTENTION_COOP_SCORES(rows, subgroups, coop_m, coop_n) +                          \
   2 * HADAL_ATTENTION_COOP_WEIGHTS(rows) + 20 * (rows) + 8 * 64)

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_ATTENTION_COOPMAT_H_
