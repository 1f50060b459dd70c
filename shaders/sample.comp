#version 460
#extension GL_GOOGLE_include_directive : require
// sample: one token id per row. One workgroup = one row. Tokens are compared by integer keys of
// their logits and weighed in 40-bit fixed point, so that every count and every mass is an exact
// integer sum: no order to fix, the same id for any workgroup and subgroup size. Phases: largest
// key; top-k and top-p as prefixes of the order (key descending, id ascending), found 4 bits of
// the key at a time; the draw by descending through the running mass in id order.
#include "lib/prelude.glsl"
#include "layout/sample.h"
#include "lib/order_key.glsl"
#include "lib/philox.glsl"
#include "lib/reduce.glsl"

layout(push_constant, scalar) uniform Push { SamplePush pc; };

layout(buffer_reference, scalar, buffer_reference_align = 4) readonly buffer ParamsIn {
  SampleParams v;
};

const uint kCount = 0;   // a token weighs 1
const uint kMass = 1;    // its fixed-point probability mass
const uint kChosen = 2;  // the same, 0 below min_p: the final distribution
const uint kDigits = 16;
const uint kExactSums = kDigits;
#include "lib/exact_mass.glsl"

shared uint64_t chunk_sums[kSampleMaxWorkgroup];
shared uint found_chunk;
shared uint64_t found_rest;

// The row's state, the same in every invocation.
uint64_t logits;
float temperature;
uint top_key;
float top_value;
uint64_t min_weight;
// Tokens still in: key > threshold, and those with key == threshold and id < tie_end.
uint threshold;
uint tie_end;

uint token_key(uint id) { return order_key(UintIn(logits + uint64_t(id) * 4).v); }

bool kept(uint key, uint id) { return key > threshold || (key == threshold && id < tie_end); }

uint64_t weight_of(uint key) {
  if (key == kOrderKeyMinusInfinity) return 0;
  if (key == top_key) return uint64_t(1) << kMassBits;
  return fixed_point(exp((order_key_value(key) - top_value) / temperature));
}

uint64_t measure(uint mode, uint key, uint id) {
  if (!kept(key, id)) return 0;
  if (mode == kCount) return 1;
  uint64_t w = weight_of(key);
  return mode == kChosen && w < min_weight ? 0 : w;
}

// The whole mass of the tokens that are in.
uint64_t total_mass() {
  uint64_t sum = 0;
  for (uint id = gl_LocalInvocationID.x; id < pc.vocab; id += gl_WorkGroupSize.x) {
    sum += measure(kMass, token_key(id), id);
  }
  sums_begin();
  sums_add(0, sum);
  barrier();
  return sums_get(0);
}

// High half of the 128-bit product.
uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t low = uint64_t(0xffffffffu);
  uint64_t al = a & low, ah = a >> 32, bl = b & low, bh = b >> 32;
  uint64_t lh = al * bh, hl = ah * bl;
  uint64_t middle = ((al * bl) >> 32) + (lh & low) + (hl & low);
  return ah * bh + (lh >> 32) + (hl >> 32) + (middle >> 32);
}

// The lowest id at which the running measure of the tokens up to it exceeds `rest`; `only_key` !=
// 0 counts tokens of that key alone. With `draw`, rest is random / 2^64 of the whole measure.
uint locate(uint mode, uint only_key, uint64_t rest, bool draw) {
  uint begin = 0, end = pc.vocab;
  while (true) {
    uint chunk = (end - begin + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;
    uint from = min(begin + gl_LocalInvocationID.x * chunk, end), to = min(from + chunk, end);
    uint64_t sum = 0;
    for (uint id = from; id < to; id++) {
      uint key = token_key(id);
      if (only_key == 0 || key == only_key) sum += measure(mode, key, id);
    }
    chunk_sums[gl_LocalInvocationID.x] = sum;
    barrier();
    if (gl_LocalInvocationID.x == 0) {
      if (draw) {
        uint64_t all = 0;
        for (uint i = 0; i < gl_WorkGroupSize.x; i++) all += chunk_sums[i];
        rest = multiply_high(rest, all);
      }
      uint i = 0;
      while (i + 1 < gl_WorkGroupSize.x && rest >= chunk_sums[i]) rest -= chunk_sums[i++];
      found_chunk = i;
      found_rest = rest;
    }
    barrier();
    begin = min(begin + found_chunk * chunk, pc.vocab - 1);
    if (chunk <= 1) return begin;
    end = min(begin + chunk, end);
    rest = found_rest;
    draw = false;
  }
  return 0;
}

// Finds the last key of the shortest prefix of the order whose measure is at least `target`.
// `at_least` is the measure of what is in now, more than `target`, and becomes the prefix's with
// all tokens of the last key; `above` is the measure without them.
uint find_last_key(uint mode, uint64_t target, inout uint64_t at_least, out uint64_t above) {
  uint base = 0;  // the largest key found so far with measure(key >= base) >= target
  above = 0;
  for (int shift = 28; shift >= 0 && at_least > target; shift -= 4) {
    uint64_t sums[kDigits];
    [[unroll]] for (uint d = 1; d < kDigits; d++) sums[d] = 0;
    for (uint id = gl_LocalInvocationID.x; id < pc.vocab; id += gl_WorkGroupSize.x) {
      uint key = token_key(id);
      // Outside the digit's ranges: what lies above them is in `above`, the lowest range decides
      // nothing.
      if (key - base - (1u << shift) >= 15u << shift) continue;
      uint64_t m = measure(mode, key, id);
      [[unroll]] for (uint d = 1; d < kDigits; d++) {
        if (key >= base + (d << shift)) sums[d] += m;
      }
    }
    sums_begin();
    [[dont_unroll]] for (uint d = 1; d < kDigits; d++) sums_add(d, sums[d]);
    barrier();
    uint digit = 0;
    uint64_t above_ranges = above;
    [[dont_unroll]] for (uint d = 1; d < kDigits; d++) {
      uint64_t sum = above_ranges + sums_get(d);
      if (sum < target) {
        above = sum;
        break;
      }
      digit = d;
      at_least = sum;
    }
    base += digit << shift;
  }
  return base;
}

void main() {
  SampleParams params = ParamsIn(pc.params + uint64_t(gl_WorkGroupID.x) * 32).v;
  logits = pc.logits + uint64_t(gl_WorkGroupID.x) * pc.logits_stride * 4;

  uint best = 0, best_id = 0;
  for (uint id = gl_LocalInvocationID.x; id < pc.vocab; id += gl_WorkGroupSize.x) {
    uint key = token_key(id);
    if (key > best) {
      best = key;
      best_id = id;
    }
  }
  top_key = workgroup_max(best);
  uint result = ~workgroup_max(best == top_key ? ~best_id : 0u);

  // Parameters are judged by their bits: NaN switches its rule off. Positive floats are
  // 1..+infinity.
  const uint positive = 0x7f800000u, one = 0x3f800000u;
  bool random = floatBitsToUint(params.temperature) - 1 < positive && params.top_k != 1 &&
                top_key > kOrderKeyMinusInfinity;
  if (random) {
    temperature = params.temperature;
    top_value = order_key_value(top_key);
    threshold = 0;
    tie_end = pc.vocab;
    min_weight = floatBitsToUint(params.min_p) - 1 < positive ? fixed_point(params.min_p) : 0;
    // Three stages in one loop, so that drivers compile each search once.
    for (uint stage = kCount; stage <= kChosen; stage++) {
      uint only_key = 0;
      uint64_t rest = 0;
      if (stage == kChosen) {
        uvec4 words =
            philox4x32(uvec4(params.position, 0, 0, 0), uvec2(params.seed_lo, params.seed_hi));
        rest = uint64_t(words.x) | (uint64_t(words.y) << 32);
      } else {
        uint64_t at_least = pc.vocab, target = params.top_k, above;
        if (stage == kCount && (params.top_k == 0 || params.top_k >= pc.vocab)) continue;
        if (stage == kMass) {
          if (floatBitsToUint(params.top_p) >= one) continue;
          at_least = total_mass();
          // top_p in units of 2^-32, rounded down; at least the best token stays.
          target = multiply_high(at_least, uint64_t(params.top_p * 4294967296.0) << 32);
          if (target == 0) target = 1;
        }
        uint last = find_last_key(stage, target, at_least, above);
        uint64_t unit = stage == kCount ? uint64_t(1) : weight_of(last);
        if (at_least <= target || at_least - unit < target) {  // all tokens with the last key stay
          if (last > threshold) tie_end = pc.vocab;
          threshold = last;
          continue;
        }
        only_key = last;
        rest = target - above - 1;
      }
      result = locate(stage, only_key, rest, stage == kChosen);
      if (stage != kChosen) {
        threshold = only_key;
        tie_end = result + 1;
      }
    }
  }
  if (gl_LocalInvocationID.x == 0) UintOut(pc.ids + uint64_t(gl_WorkGroupID.x) * 4).v = result;
}
