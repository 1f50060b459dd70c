#version 460
#extension GL_GOOGLE_include_directive : require
// mla_cache_write: cache[slot] = [rms_norm(y[:rank]) * weight | rope(y[rank:])]. One workgroup =
// one token. Phases: the latent's sum of squares (row_sum: an order that no workgroup size changes);
// its scaled channels, group by group of 128 as the quantiser wants
// them, rounded through e4m3 when asked, or stored as the quantiser's codes and scales; the rotated
// pairs. A token without a slot, or with one past the cache, ends before any of them: the condition is
// uniform.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_cache_write.h"
#include "lib/quantize.glsl"
#include "lib/reduce.glsl"
#include "lib/rope.glsl"

layout(constant_id = kMlaCacheWriteSpecFormat) const uint FORMAT = kKvFormatF32;
layout(constant_id = kMlaCacheWriteSpecRounding) const uint ROUNDING = 0;

layout(push_constant, scalar) uniform Push { MlaCacheWritePush pc; };

void store(uint64_t address, uint column, float value) {
  if (FORMAT == kKvFormatF32) {
    FloatOut(address + column * 4).v = value;
  } else {
    U16Out(address + column * 2).v = uint16_t(bf16_encode(value));
  }
}

void main() {
  uint token = gl_WorkGroupID.x;
  uint slot = UintIn(pc.slots + uint64_t(token) * 4).v;
  if (slot >= pc.cache_rows) return;  // kKvNoSlot is the largest uint
  uint position = UintIn(pc.positions + uint64_t(token) * 4).v;
  uint64_t y = pc.y + uint64_t(token) * pc.y_stride * 4;
  uint64_t row = pc.cache + uint64_t(slot) * pc.row_stride * kv_stride_unit(FORMAT);

  float squares[ROW_CHAINS];
  [[unroll]] for (uint j = 0; j < ROW_CHAINS; j++) squares[j] = 0.0;
  [[dont_unroll]] for (uint group = 0; group < pc.rank; group += kFp8Block) {
    uint begin = group + quantize_lane_begin();
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
      float x = begin + i < pc.rank ? FloatIn(y + (begin + i) * 4).v : 0.0;
      squares[i / 4] = mac(x, x, squares[i / 4]);
    }
  }
  precise float mean = row_sum(squares) * pc.inverse_rank;
  precise float shifted = mean + pc.eps;
  float scale = inversesqrt(shifted);
  [[dont_unroll]] for (uint group = 0; group < pc.rank; group += kFp8Block) {
    uint begin = group + quantize_lane_begin();
    float x[QUANTIZE_ELEMS];
    [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
      uint c = min(begin + i, pc.rank - 1);
      precise float normed = FloatIn(y + c * 4).v * scale;
      precise float weighted = normed * FloatIn(pc.weight + c * 4).v;
      x[i] = weighted;
    }
    if (FORMAT == kKvFormatFp8) {
      quantize_group(x, group, pc.rank, row, row + kv_fp8_scales_offset(pc.rank), ROUNDING == 2);
    } else {
      if (ROUNDING != 0) round_group(x, group, pc.rank, ROUNDING == 2);
      [[unroll]] for (uint i = 0; i < QUANTIZE_ELEMS; i++) {
        if (begin + i < pc.rank) store(row, begin + i, x[i]);
      }
    }
  }
  uint64_t key = row + kv_key_offset(FORMAT, pc.rank), y_key = y + pc.rank * 4;
  for (uint i = gl_LocalInvocationID.x; i < pc.pairs; i += gl_WorkGroupSize.x) {
    uint first = i * pc.pair_step, second = first + pc.partner;
    vec2 cos_sin = rope_cos_sin(pc.table, position, pc.max_position, pc.pairs, i);
    vec2 rotated =
        rope_rotate(vec2(FloatIn(y_key + first * 4).v, FloatIn(y_key + second * 4).v), cos_sin);
    store(key, first, rotated.x);
    store(key, second, rotated.y);
  }
}
