#version 460
#extension GL_GOOGLE_include_directive : require
// logit_adjust: penalties, biases and masks. One workgroup = one listed row. Phases: what the mask
// forbids (and, not in place, a copy of the rest); the row's edits of tokens that it allows. In
// place the two write different tokens, so that nothing orders them.
#include "lib/prelude.glsl"
#include "layout/logit_adjust.h"

layout(constant_id = kLogitAdjustSpecInPlace) const uint IN_PLACE = 1;

layout(push_constant, scalar) uniform Push { LogitAdjustPush pc; };

layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer RowIn {
  LogitAdjustRow v;
};
layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer EditIn { LogitEdit v; };

const uint kInfinity = 0x7f800000u, kMinusInfinity = 0xff800000u;

LogitAdjustRow row;
uint64_t mask_row;  // 0: every token is allowed

bool allowed(uint id) {
  return mask_row == 0 || ((UintIn(mask_row + (id >> 5) * 4).v >> (id & 31u)) & 1u) != 0;
}

// Every step rounds once, and a step that does nothing is left out: a driver may flush subnormals.
uint edited(uint bits, LogitEdit edit) {
  if ((bits & 0x7fffffffu) >= kInfinity) return bits;
  precise float l = uintBitsToFloat(bits);
  if (edit.prompt + edit.generated > 0 && row.repetition != 1.0) {
    l = l * (l > 0.0 ? row.inverse_repetition : row.repetition);
  }
  if (edit.generated > 0) {
    precise float counted = row.frequency * float(edit.generated);
    if (counted != 0.0) l = l - counted;
    if (row.presence != 0.0) l = l - row.presence;
  }
  if (edit.bias != 0.0) l = l + edit.bias;
  return floatBitsToUint(l);
}

void main() {
  uint lane = gl_LocalInvocationID.x, width = gl_WorkGroupSize.x;
  row = RowIn(pc.listed + uint64_t(gl_WorkGroupID.x) * 32).v;
  if (row.row >= pc.rows) return;
  uint64_t x = pc.x + uint64_t(row.row) * pc.x_stride * 4;
  uint64_t y = pc.y + uint64_t(row.row) * pc.y_stride * 4;
  mask_row = 0;
  if (row.mask < pc.mask_count) {
    mask_row = pc.masks + uint64_t(row.mask) * ((pc.vocab + 31) >> 5) * 4;
  }

  if (IN_PLACE == 0 || mask_row != 0) {
    for (uint id = lane; id < pc.vocab; id += width) {
      if (!allowed(id)) {
        UintOut(y + uint64_t(id) * 4).v = kMinusInfinity;
      } else if (IN_PLACE == 0) {
        UintOut(y + uint64_t(id) * 4).v = UintIn(x + uint64_t(id) * 4).v;
      }
    }
  }
  if (IN_PLACE == 0) {
    memoryBarrierBuffer();
    barrier();
  }
  uint end = min(row.edits_end, pc.edit_count);
  for (uint i = row.edits_begin + lane; i < end; i += width) {
    LogitEdit edit = EditIn(pc.edits + uint64_t(i) * 16).v;
    if (edit.id >= pc.vocab || !allowed(edit.id)) continue;
    UintOut(y + uint64_t(edit.id) * 4).v =
        edited(UintIn(x + uint64_t(edit.id) * 4).v, edit);
  }
}
