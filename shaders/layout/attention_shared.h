// What the hosts of lib/attention_shared.glsl know of it. kernels/attention_paths.cpp chooses tiles by the
// same macros that size the shader's arrays.
#ifndef HADAL_LAYOUT_ATTENTION_SHARED_H_
#define HADAL_LAYOUT_ATTENTION_SHARED_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kAttentionSharedSpecRows, 20);         // queries or heads per workgroup
HADAL_CONST(kAttentionSharedSpecSlice, 21);        // key channels staged at a time; divides kFp8Block
HADAL_CONST(kAttentionSharedSpecInvocations, 22);  // the workgroup's size, a multiple of 16
HADAL_CONST(kAttentionSharedSpecValueSlices, 23);  // slices of kAttentionSharedValueSlice value channels

// Invocations lie in rows of 16: each has 4 keys of a block, and 4 value channels of a slice.
HADAL_CONST(kAttentionSharedColumns, 16);
HADAL_CONST(kAttentionSharedValueSlice, 64);

// Macros, because GLSL sizes arrays by expressions of specialisation constants, not by functions.

// Floats: a slice of 64 keys and of the rows' queries, a float of padding behind each against equal
// banks, or of 64 values and their scales.
#define HADAL_ATTENTION_SHARED_STAGE(rows, slice)                                              \
  ((64 + (rows)) * ((slice) + 1) > 64 * 65 ? (64 + (rows)) * ((slice) + 1) : 64 * 65)
// The same, and the probabilities.
#define HADAL_ATTENTION_SHARED_BYTES(rows, slice) \
  (4 * (HADAL_ATTENTION_SHARED_STAGE(rows, slice) + 64 * (rows)))

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_ATTENTION_SHARED_H_
