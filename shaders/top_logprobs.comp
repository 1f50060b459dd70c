#version 460
#extension GL_GOOGLE_include_directive : require
// top_logprobs: log-probabilities of a chosen token and of the best ones. One workgroup = one row.
// The row is cut into chunks: the tokens of one invocation in a run of `length` turns of the whole
// workgroup. Phases: the best token of each chunk; the row's mass, an exact integer; then `top`
// times the best of the chunks' best, whose chunk looks for its next one.
#include "lib/prelude.glsl"
#include "layout/top_logprobs.h"
#include "lib/order_key.glsl"
#include "lib/reduce.glsl"
const uint kExactSums = 1;
#include "lib/exact_mass.glsl"

layout(push_constant, scalar) uniform Push { TopLogprobsPush pc; };

const uint kNaN = 0x7fc00000u, kMinusInfinity = 0xff800000u;

shared uint chunk_keys[kTopLogprobsChunks];  // 0: none left
shared uint chunk_ids[kTopLogprobsChunks];

// The row's state, the same in every invocation.
uint64_t logits;
uint top_key;
float top_value;
float log_mass;

uint token_key(uint id) { return order_key(UintIn(logits + uint64_t(id) * 4).v); }

// The largest key of the workgroup, and the lowest id that has it.
uvec2 workgroup_best(uint key, uint id) {
  uint best = workgroup_max(key);
  return uvec2(best, ~workgroup_max(key == best ? ~id : 0u));
}

uint64_t weight_of(uint key) {
  if (key == kOrderKeyMinusInfinity) return 0;
  if (key == top_key) return uint64_t(1) << kMassBits;
  return fixed_point(exp(order_key_value(key) - top_value));
}

// Bits of the log-probability; of infinities without arithmetic on them.
uint logprob_of(uint key) {
  if (key == kOrderKeyMinusInfinity) return kMinusInfinity;
  precise float difference = 0.0;
  if (key != top_key) {
    if (floatBitsToUint(top_value) == 0x7f800000u) return kMinusInfinity;
    difference = order_key_value(key) - top_value;
  }
  precise float result = difference - log_mass;
  return floatBitsToUint(result);
}

void main() {
  uint lane = gl_LocalInvocationID.x, width = gl_WorkGroupSize.x, listed = gl_WorkGroupID.x;
  // Loads of the same address for all may run where their branch does not: addresses are legal.
  uint row = UintIn((pc.listed != 0 ? pc.listed : pc.ids) + uint64_t(listed) * 4).v;
  if (pc.listed == 0) row = listed;
  if (row >= pc.rows) return;
  row = min(row, pc.rows - 1);
  logits = pc.logits + uint64_t(row) * pc.logits_stride * 4;
  uint length = (pc.vocab + kTopLogprobsChunks - 1) / kTopLogprobsChunks;
  uint run = width * length;  // tokens of `width` chunks

  uint best = 0, chunks = 0;
  for (uint base = 0; base < pc.vocab; base += run) {
    uint key = 0, id = 0, end = min(base + run, pc.vocab);
    for (uint i = base + lane; i < end; i += width) {
      uint k = token_key(i);
      if (k > key) {
        key = k;
        id = i;
      }
    }
    if (pc.top > 0) {
      chunk_keys[chunks + lane] = key;
      chunk_ids[chunks + lane] = id;
    }
    best = max(best, key);
    chunks += width;
  }
  top_key = workgroup_max(best);
  top_value = order_key_value(top_key);

  uint64_t sum = 0;
  for (uint i = lane; i < pc.vocab; i += width) sum += weight_of(token_key(i));
  sums_begin();
  sums_add(0, sum);
  barrier();
  uint64_t mass = sums_get(0);
  precise float mass_value = float(uint(mass >> 32)) * (1.0 / 256.0) + float(uint(mass)) * kMassUnit;
  log_mass = log(mass_value);

  if (lane == 0) {
    uint id = UintIn(pc.ids + uint64_t(row) * 4).v;
    uint bits = logprob_of(token_key(min(id, pc.vocab - 1)));
    UintOut(pc.logprobs + uint64_t(listed) * 4).v = id < pc.vocab ? bits : kNaN;
  }
  for (uint n = 0; n < pc.top; n++) {
    barrier();
    uvec2 found = uvec2(0, ~0u);
    for (uint c = lane; c < chunks; c += width) {
      uint key = chunk_keys[c], id = chunk_ids[c];
      if (key > found.x || (key == found.x && id < found.y)) found = uvec2(key, id);
    }
    found = workgroup_best(found.x, found.y);
    uint first = found.y / run * run + found.y % width;  // of the chunk
    uvec2 next = uvec2(0, ~0u);
    for (uint t = lane; t < length; t += width) {
      uint i = first + t * width;
      if (i >= pc.vocab) break;
      uint key = token_key(i);
      bool behind = key < found.x || (key == found.x && i > found.y);
      if (behind && key > next.x) next = uvec2(key, i);
    }
    next = workgroup_best(next.x, next.y);
    if (lane == 0) {
      uint chunk = found.y / run * width + found.y % width;
      chunk_keys[chunk] = next.x;
      chunk_ids[chunk] = next.y;
      uint64_t at = (uint64_t(listed) * pc.top + n) * 4;
      UintOut(pc.top_ids + at).v = found.y;
      UintOut(pc.top_logprobs + at).v = logprob_of(found.x);
    }
  }
}
