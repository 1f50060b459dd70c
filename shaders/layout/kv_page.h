// The paged KV cache: the one place that knows how a position becomes a row. The cache is an array
// of rows [latent | rotated key]; a page is kKvPageTokens consecutive rows, and a sequence's block
// table lists its pages: position p is row table[p / kKvPageTokens] * kKvPageTokens + p %
// kKvPageTokens.
#ifndef HADAL_LAYOUT_KV_PAGE_H_
#define HADAL_LAYOUT_KV_PAGE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kKvPageTokens, 64);
HADAL_CONST(kKvNoSlot, 0xffffffffu);  // a token that is not stored

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_KV_PAGE_H_
