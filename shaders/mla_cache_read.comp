#version 460
#extension GL_GOOGLE_include_directive : require
// mla_cache_read: rows begin, begin + 1, ... of one sequence out of the paged cache. One workgroup
// = one row. Invocation i holds consecutive channels of a group of 128, as the quantiser wants
// them; the latent is read once for both of its forms.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_cache_read.h"
#include "lib/quantize.glsl"

layout(constant_id = kMlaCacheReadSpecFormat) const uint FORMAT = kKvFormatF32;

layout(push_constant, scalar) uniform Push { MlaCacheReadPush pc; };

float load(uint64_t row, uint column) {
  if (FORMAT == kKvFormatBf16) return bf16_decode(uint(U16In(row + column * 2).v));
  return FloatIn(row + column * 4).v;
}

void main() {
  uint out_row = gl_WorkGroupID.x;
  uint position = pc.begin + out_row;
  uint page = UintIn(pc.block_table + uint64_t(position / kKvPageTokens) * 4).v;
  uint64_t slot = uint64_t(page) * kKvPageTokens + position % kKvPageTokens;
  bool inside = slot < pc.cache_rows;  // uniform; a page past the cache reads as NaN
  uint64_t row = pc.cache + slot * pc.row_stride * kv_stride_unit(FORMAT);
  const float nan = uintBitsToFloat(0x7fc00000u);

  if (pc.latent != 0 || pc.q != 0) {
    uint64_t latent = pc.latent + uint64_t(out_row) * pc.latent_stride * 4;
    uint64_t q = pc.q + uint64_t(out_row) * pc.q_stride;
    uint64_t scale = pc.scale + uint64_t(out_row) * pc.scale_stride * 4;
    [[dont_unroll]] for (uint group = 0; group < pc.rank; group += kFp8Block) {
      uint c = group + quantize_lane_begin();
      float x[QUANTIZE_ELEMS];
      [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
        x[i] = nan;
        if (c + i < pc.rank) {
          if (inside) x[i] = load(row, c + i);
          if (pc.latent != 0) FloatOut(latent + (c + i) * 4).v = x[i];
        }
      }
      if (pc.q != 0) {
        quantize_group(x, group, pc.rank, q, scale, (pc.flags & kMlaCacheReadFlagUe8m0) != 0);
      }
    }
  }
  if (pc.k_pe != 0) {
    uint64_t k_pe = pc.k_pe + uint64_t(out_row) * pc.k_pe_stride * 4;
    for (uint c = gl_LocalInvocationID.x; c < pc.rope; c += gl_WorkGroupSize.x) {
      float x = nan;
      if (inside) x = load(row, pc.rank + c);
      FloatOut(k_pe + c * 4).v = x;
    }
  }
}
