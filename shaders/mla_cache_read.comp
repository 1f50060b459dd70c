#version 460
#extension GL_GOOGLE_include_directive : require
// mla_cache_read: rows begin, begin + 1, ... of one sequence out of the paged cache. One workgroup
// = one row. Invocation i holds consecutive channels of a group of 128, as the quantiser wants
// them; the latent is read once for both of its forms. An FP8 row has its quantised form already.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_cache_read.h"
#include "lib/fp8.glsl"
#include "lib/quantize.glsl"

layout(constant_id = kMlaCacheReadSpecFormat) const uint FORMAT = kKvFormatF32;

layout(push_constant, scalar) uniform Push { MlaCacheReadPush pc; };

float load(uint64_t address, uint column) {
  if (FORMAT == kKvFormatF32) return FloatIn(address + column * 4).v;
  return bf16_decode(uint(U16In(address + column * 2).v));
}

// One group of an FP8 row: codes and scale as they are stored, and the values that they stand for.
void read_fp8_group(uint64_t row, bool inside, uint group, uint64_t latent, uint64_t q,
                    uint64_t scale) {
  // A uniform load runs on a CPU driver even where `inside` is false: its address must be legal.
  uint64_t stored_scale = row + kv_fp8_scales_offset(pc.rank) + group / kFp8Block * 4;
  float s = FloatIn(inside ? stored_scale : pc.block_table).v;
  s = inside ? s : uintBitsToFloat(0x7fc00000u);
  if (pc.q != 0 && gl_LocalInvocationID.x == 0) FloatOut(scale + group / kFp8Block * 4).v = s;
  [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i += 4) {
    uint c = group + quantize_lane_begin() + i;
    if (c < pc.rank) {
      uint word = 0;
      if (inside) word = UintIn(row + c).v;  // the row is padded to words
      if (pc.latent != 0) {
        vec4 code = e4m3x4_times_2_m8(word) * 256.0;
        [[unroll]] for (uint j = 0; j < 4; j++) {
          precise float x = code[j] * s;
          if (c + j < pc.rank) FloatOut(latent + (c + j) * 4).v = x;
        }
      }
      if (pc.q != 0) {
        if (c + 4 <= pc.rank) {
          UintOut(q + c).v = word;
        } else {
          for (uint j = 0; c + j < pc.rank; j++) U8Out(q + c + j).v = uint8_t(word >> (8 * j));
        }
      }
    }
  }
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
      if (FORMAT == kKvFormatFp8) {
        read_fp8_group(row, inside, group, latent, q, scale);
        continue;
      }
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
    uint64_t key = row + kv_key_offset(FORMAT, pc.rank);
    for (uint c = gl_LocalInvocationID.x; c < pc.rope; c += gl_WorkGroupSize.x) {
      float x = nan;
      if (inside) x = load(key, c);
      FloatOut(k_pe + c * 4).v = x;
    }
  }
}
