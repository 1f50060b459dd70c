// The tile list between moe_permute, which writes it on the device, and the grouped GEMMs, which are
// dispatched over it; and the table that finds an expert's weights. kernels/include/hadal/grouped_gemm.h
// is the same for the host.
#ifndef HADAL_LAYOUT_MOE_TILES_H_
#define HADAL_LAYOUT_MOE_TILES_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

// One row of workgroups: at most tile_m rows of d, from row_begin on, of one expert.
struct MoeTile {
  uint expert;
  uint row_begin;
  uint row_end;
  uint reserved;
};
HADAL_CHECK_SIZE(MoeTile, 16);

// Addresses of one expert's weight (and of its scales, where the format has them).
struct ExpertWeight {
  uint64_t b;
  uint64_t b_scale;
};
HADAL_CHECK_SIZE(ExpertWeight, 16);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_MOE_TILES_H_
