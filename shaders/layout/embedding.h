// Everything that kernels/embedding.cpp and shaders/embedding.comp both know.
#ifndef HADAL_LAYOUT_EMBEDDING_H_
#define HADAL_LAYOUT_EMBEDDING_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kEmbeddingElemsPerInvocation, 8);

struct EmbeddingPush {
  uint64_t ids;    // [tokens] uint
  uint64_t table;  // [vocab, hidden] bfloat16
  uint64_t y;      // [tokens, hidden] float
  uint hidden;
  uint vocab;
  uint table_stride;  // elements between rows
  uint y_stride;      // elements
};
HADAL_CHECK_SIZE(EmbeddingPush, 40);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_EMBEDDING_H_
