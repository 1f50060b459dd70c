// Sums and maxima over the whole workgroup, right for 1..n subgroups of any size. Every invocation
// gets the result, and every invocation must call (uniform control flow). Shared memory and barriers
// only run when the workgroup spans several subgroups: none on a CPU driver with one subgroup per
// workgroup. The order of a sum is fixed for a pipeline and a driver: subgroupAdd's own inside a
// subgroup, then subgroups ascending.
#ifndef HADAL_REDUCE_GLSL_
#define HADAL_REDUCE_GLSL_

#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

// 1024 invocations in subgroups of 4.
const uint kReduceMaxSubgroups = 256;
shared uint reduce_partials[kReduceMaxSubgroups];

// Publishes the subgroup's partial (bits); reduce_done() must follow the last read.
void reduce_publish(uint bits) {
  if (subgroupElect()) reduce_partials[gl_SubgroupID] = bits;
  barrier();
}
void reduce_done() { barrier(); }

float workgroup_sum(float value) {
  precise float sum = subgroupAdd(value);
  if (gl_NumSubgroups > 1) {
    reduce_publish(floatBitsToUint(sum));
    sum = uintBitsToFloat(reduce_partials[0]);
    for (uint i = 1; i < gl_NumSubgroups; i++) sum += uintBitsToFloat(reduce_partials[i]);
    reduce_done();
  }
  return sum;
}

// NaN: as max(), undefined. Use the uint form on bits where NaN must win.
float workgroup_max(float value) {
  float result = subgroupMax(value);
  if (gl_NumSubgroups > 1) {
    reduce_publish(floatBitsToUint(result));
    for (uint i = 0; i < gl_NumSubgroups; i++) {
      result = max(result, uintBitsToFloat(reduce_partials[i]));
    }
    reduce_done();
  }
  return result;
}

uint workgroup_max(uint value) {
  uint result = subgroupMax(value);
  if (gl_NumSubgroups > 1) {
    reduce_publish(result);
    for (uint i = 0; i < gl_NumSubgroups; i++) result = max(result, reduce_partials[i]);
    reduce_done();
  }
  return result;
}

#endif  // HADAL_REDUCE_GLSL_
