// What the hosts of lib/attention_lanes.glsl know of it.
#ifndef HADAL_LAYOUT_ATTENTION_LANES_H_
#define HADAL_LAYOUT_ATTENTION_LANES_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

// The channels of keys' and values' parts are multiples of it.
HADAL_CONST(kAttentionLanesStep, 8);

HADAL_CONST(kAttentionLanesSpecVectors, 20);   // vectors of rows per workgroup
HADAL_CONST(kAttentionLanesSpecKeys, 21);      // keys of a tile; divides 64
HADAL_CONST(kAttentionLanesSpecChannels, 22);  // value channels of a tile; divides the step
HADAL_CONST(kAttentionLanesSpecRun, 23);       // blocks of 64 keys per run

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_ATTENTION_LANES_H_
