// Everything that kernels/top_logprobs.cpp and shaders/top_logprobs.comp both know.
#ifndef HADAL_LAYOUT_TOP_LOGPROBS_H_
#define HADAL_LAYOUT_TOP_LOGPROBS_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

// Parts of a row whose best tokens are kept at hand; a multiple of every workgroup size.
HADAL_CONST(kTopLogprobsChunks, 1024);

struct TopLogprobsPush {
  uint64_t logits;        // [rows, vocab] float
  uint64_t listed;        // [listed] uint, rows; 0: all in order
  uint64_t ids;           // [rows] uint
  uint64_t logprobs;      // [listed] float
  uint64_t top_ids;       // [listed, top] uint
  uint64_t top_logprobs;  // [listed, top] float
  uint rows;
  uint vocab;
  uint logits_stride;  // elements
  uint top;
};
HADAL_CHECK_SIZE(TopLogprobsPush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_TOP_LOGPROBS_H_
