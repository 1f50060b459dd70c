// Everything that kernels/swiglu.cpp and shaders/swiglu.comp both know.
#ifndef HADAL_LAYOUT_SWIGLU_H_
#define HADAL_LAYOUT_SWIGLU_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kSwigluFlagWriteY, 1);
HADAL_CONST(kSwigluFlagQuantize, 2);
HADAL_CONST(kSwigluFlagUe8m0, 4);  // scales are powers of two

struct SwigluPush {
  uint64_t gate;   // [rows, n] float
  uint64_t up;     // [rows, n] float
  uint64_t y;      // [rows, n] float
  uint64_t q;      // [rows, n] e4m3
  uint64_t scale;  // [rows, ceil(n/128)] float
  uint n;
  uint gate_stride;  // elements between rows
  uint up_stride;
  uint y_stride;
  uint q_stride;  // bytes
  uint scale_stride;
  uint groups_per_workgroup;
  uint flags;
};
HADAL_CHECK_SIZE(SwigluPush, 72);

struct SwigluTilesPush {
  uint64_t gate;   // as SwigluPush
  uint64_t up;
  uint64_t y;
  uint64_t q;
  uint64_t scale;
  uint64_t tiles;  // MoeTile [workgroups in y]
  uint n;
  uint gate_stride;
  uint up_stride;
  uint y_stride;
  uint q_stride;
  uint scale_stride;
  uint groups_per_workgroup;
  uint flags;
};
HADAL_CHECK_SIZE(SwigluTilesPush, 80);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_SWIGLU_H_
