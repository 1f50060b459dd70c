// Everything that kernels/sample.cpp and shaders/sample.comp both know.
#ifndef HADAL_LAYOUT_SAMPLE_H_
#define HADAL_LAYOUT_SAMPLE_H_

#include "interop.h"

HADAL_LAYOUT_BEGIN

HADAL_CONST(kSampleMaxWorkgroup, 1024);

// How one row is drawn; hadal/sample.h says what the values mean.
struct SampleParams {
  float temperature;
  uint top_k;
  float top_p;
  float min_p;
  uint seed_lo;
  uint seed_hi;
  uint position;
  uint reserved;
};
HADAL_CHECK_SIZE(SampleParams, 32);

struct SamplePush {
  uint64_t logits;  // [rows, vocab] float
  uint64_t params;  // [rows] SampleParams
  uint64_t ids;     // [rows] uint
  uint vocab;
  uint logits_stride;  // elements
};
HADAL_CHECK_SIZE(SamplePush, 32);

HADAL_LAYOUT_END

#endif  // HADAL_LAYOUT_SAMPLE_H_
