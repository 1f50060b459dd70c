#version 460
#extension GL_GOOGLE_include_directive : require
// fp8_quantize for CPU drivers (lib/row_vectors.glsl). One workgroup = one row (y) and a run of its
// groups (x), so that workgroups follow each other in memory. The groups' maxima are kept one per
// invocation, so that the scales of a batch of them, a long chain of operations, are made side by
// side; while a batch's codes are made, the next one's channels are read for their maxima. A larger batch
// takes fewer scales, but loses the processor's prefetcher between the two places that it reads at. The inner
// loop tests at its end, because a test at the start costs a whole turn more.
#include "lib/prelude.glsl"
#include "layout/fp8_quantize.h"
#include "lib/row_vectors.glsl"

layout(push_constant, scalar) uniform Push { Fp8QuantizePush pc; };

void store_scale(uint64_t row, uint group, float scale, bool e8m0) {
  if (e8m0) {  // of a power of two the exponent, of the NaN 0xff
    U8Out(row + group).v = uint8_t(floatBitsToUint(scale) >> 23);
  } else {
    FloatOut(row + group * 4).v = scale;
  }
}

const uint BATCH = (LANES < 8 ? LANES : 8) * kFp8Block;

uint load_amax(uint64_t group) {
  float x[VECTORS];
  load_group(group, x);
  return group_amax(x);
}

// The row's last group, where it is not a whole one.
void store_last(uint64_t x_row, uint64_t q_row, uint64_t scale_row, uint whole_end, uint end, bool ue8m0, bool e8m0) {
  if (whole_end < end) {
    float x[VECTORS];
    load_part(x_row + uint64_t(whole_end) * 4, end - whole_end, x);
    Fp8Scale s = fp8_scale(group_amax(x), ue8m0);
    store_codes(x, s, q_row + uint64_t(whole_end), false, end - whole_end);
    store_scale(scale_row, whole_end / kFp8Block, s.scale, e8m0);
  }
}

void main() {
  uint row = gl_WorkGroupID.y, k = pc.k;
  uint64_t x_row = pc.x + uint64_t(row) * pc.x_stride * 4;
  uint64_t q_row = pc.q + uint64_t(row) * pc.q_stride;
  bool e8m0 = (pc.flags & kFp8QuantizeFlagBytes) != 0;
  uint64_t scale_row = pc.scale + uint64_t(row) * pc.scale_stride * (e8m0 ? 1 : 4);
  bool ue8m0 = (pc.flags & kFp8QuantizeFlagUe8m0) != 0;
  uint run = pc.groups_per_workgroup * kFp8Block;
  uint begin = gl_WorkGroupID.x * run, end = min(begin + run, k);
  uint whole_end = min(end, k / kFp8Block * kFp8Block), lane = gl_SubgroupInvocationID;

  if (begin >= whole_end) {
    store_last(x_row, q_row, scale_row, whole_end, end, ue8m0, e8m0);
    return;
  }
  // The loops that test at their start take a last turn with no invocation in it, in which loads run nevertheless.
  uint last = whole_end - kFp8Block;
  uint amax = 0, first_end = min(begin + BATCH, whole_end), cursor = start_at(begin);
  [[dont_unroll]] while (position_of(cursor) < first_end) {
    uint group = position_of(cursor);
    uint value = load_amax(x_row + uint64_t(min(group, last)) * 4);
    amax = (group - begin) / kFp8Block == lane ? value : amax;
    cursor += kFp8Block;
  }
  uint batch_cursor = start_at(begin);
  [[dont_unroll]] while (position_of(batch_cursor) < whole_end) {
    uint batch = min(position_of(batch_cursor), last), batch_end = min(batch + BATCH, whole_end);
    Fp8Scale s = fp8_scale(amax, ue8m0);
    cursor = start_at(batch);
    [[dont_unroll]] do {
      uint group = min(position_of(cursor), last), index = (group - batch) / kFp8Block;
      float x[VECTORS];
      load_group(x_row + uint64_t(group) * 4, x);
      uint next = load_amax(x_row + uint64_t(min(group + BATCH, last)) * 4);
      Fp8Scale of_group = Fp8Scale(0.0, subgroupBroadcast(s.inverse, index),
                                   subgroupBroadcast(s.mask, index));
      store_codes(x, of_group, q_row + uint64_t(group), true, 0);
      amax = index == lane ? next : amax;
      cursor += kFp8Block;
    } while (position_of(cursor) < batch_end);
    if (batch + lane * kFp8Block < batch_end) {
      store_scale(scale_row, batch / kFp8Block + lane, s.scale, e8m0);
    }
    batch_cursor += BATCH;
  }
  store_last(x_row, q_row, scale_row, whole_end, end, ue8m0, e8m0);
}
