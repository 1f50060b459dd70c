// Everything that kernels/rope.cpp and shaders/rope.comp both know.
#ifndef HADAL_LAYOUT_ROPE_H_
#define HADAL_LAYOUT_ROPE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

struct RopePush {
  uint64_t x;          // [rows, heads, ...] float
  uint64_t positions;  // [rows] uint
  uint64_t table;      // [max_position, pairs, 2] float
  uint heads;
  uint pairs;        // dim / 2
  uint row_stride;   // elements
  uint head_stride;  // elements
  uint offset;       // elements
  uint pair_step;    // elements between the first channels of consecutive pairs: 2 or 1
  uint partner;      // elements between the two channels of a pair: 1 or pairs
  uint max_position;
  uint heads_per_group;
  uint reserved;
};
HADAL_CHECK_SIZE(RopePush, 64);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_ROPE_H_
