// Prefix sums over the workgroup, right for 1..n subgroups of any size.
#ifndef HADAL_SCAN_GLSL_
#define HADAL_SCAN_GLSL_

#include "reduce.glsl"

// Sum of the values of the invocations before this one, in an order of invocations that is the
// same at every call; `total` is everyone's. Uniform control flow only.
uint exclusive_sum(uint value, out uint total) {
  uint before = subgroupExclusiveAdd(value);
  total = subgroupAdd(value);
  if (gl_NumSubgroups > 1) {
    reduce_publish(total);
    total = 0;
    for (uint i = 0; i < gl_NumSubgroups; i++) {
      uint partial = reduce_partials[i];
      if (i < gl_SubgroupID) before += partial;
      total += partial;
    }
    reduce_done();
  }
  return before;
}

#endif  // HADAL_SCAN_GLSL_
