#version 460
#extension GL_GOOGLE_include_directive : require
// moe_gate for CPU drivers, sigmoid and top_k up to 8: one invocation per token, as in moe_gate_lanes,
// but every logit is read by vector loads and a transposition and scored once, and sorting networks
// select. A candidate is one 64-bit number, key above the complement of the index: the largest wins, ties
// go to the lowest index. Of each group the best LIST stay, of the groups the best KEPT. Why each piece is
// as it is, with its measurement: kernels/moe_gate.md.
#include "lib/prelude.glsl"
#include "layout/moe_gate.h"
#include "lib/order_key.glsl"

#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require

layout(constant_id = kMoeGateSpecTopK) const uint TOP_K = 8;
layout(constant_id = kMoeGateSpecKept) const uint KEPT = 4;  // groups that stay; 1 without groups

layout(push_constant, scalar) uniform Push { MoeGatePush pc; };

const uint LANES = gl_WorkGroupSize.x;    // tokens
const uint TURN = kMoeGateSortedExperts;  // experts of a turn
const uint LIST = kMoeGateSortedTopK;

bool has(uint flag) { return (pc.flags & flag) != 0; }

// As in row_vectors.glsl: a loop's position is scalar where it is read from a vector's known lane.
uint start_at(uint position) { return position + gl_SubgroupInvocationID; }
uint position_of(uint cursor) { return subgroupBroadcast(cursor, 0); }

// The words from `address`, one per invocation: a vector load.
uint load_vector(uint64_t address) {
  uint result = 0;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    uint word = UintIn(address + lane * 4ul).v;
    result = gl_SubgroupInvocationID == lane ? word : result;
  }
  return result;
}

// x of the invocation at this one's index ^ distance.
uint swap_lanes(uint x, uint distance) {
  uint result = x;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    uint other = subgroupBroadcast(x, lane ^ distance);
    result = gl_SubgroupInvocationID == lane ? other : result;
  }
  return result;
}

// v[i] of invocation j and v[j] of invocation i change places, LANES vectors from `first` on. `lane` is
// the invocation, by a value that the compiler cannot see through.
void transpose(inout uint v[TURN], uint first, uint lane) {
  [[unroll]] for (uint distance = 1; distance < LANES; distance *= 2) {
    bool low = (lane & distance) == 0;
    [[unroll]] for (uint i = 0; i < LANES; i++) {
      if ((i & distance) == 0) {
        uint a = v[first + i], b = v[first + i + distance];
        uint swapped_a = swap_lanes(a, distance), swapped_b = swap_lanes(b, distance);
        v[first + i] = low ? a : swapped_b, v[first + i + distance] = low ? swapped_a : b;
      }
    }
  }
}

float score_of(uint bits) { return 1.0 / (1.0 + exp(-uintBitsToFloat(bits))); }

// order_key() of a score plus a bias, which is never -0. The NaN goes while the numbers are floats: a
// choice between keys would be made on each half of their 64-bit vectors.
uint key_of(uint bits, float score, float bias) {
  precise float selection = score + bias;
  bool nan = isnan(uintBitsToFloat(bits)) || isnan(selection);
  uint s = nan ? 0xff800000u : floatBitsToUint(selection);
  return s ^ (uint(int(s) >> 31) | 0x80000000u);
}

void exchange(inout uint64_t v[LIST], uint a, uint b) {
  uint64_t x = v[a], y = v[b];
  v[a] = max(x, y), v[b] = min(x, y);
}

// Largest first: Batcher's network.
void sort(inout uint64_t v[LIST]) {
  [[unroll]] for (uint i = 0; i < 8; i += 2) exchange(v, i, i + 1);
  exchange(v, 0, 2), exchange(v, 1, 3), exchange(v, 4, 6), exchange(v, 5, 7);
  exchange(v, 1, 2), exchange(v, 5, 6);
  [[unroll]] for (uint i = 0; i < 4; i++) exchange(v, i, i + 4);
  exchange(v, 2, 4), exchange(v, 3, 5);
  exchange(v, 1, 2), exchange(v, 3, 4), exchange(v, 5, 6);
}

// The LIST largest of two sorted lists, sorted.
void merge(inout uint64_t v[LIST], uint64_t other[LIST]) {
  [[unroll]] for (uint i = 0; i < LIST; i++) v[i] = max(v[i], other[LIST - 1 - i]);
  [[unroll]] for (uint i = 0; i < 4; i++) exchange(v, i, i + 4);
  exchange(v, 0, 2), exchange(v, 1, 3), exchange(v, 4, 6), exchange(v, 5, 7);
  [[unroll]] for (uint i = 0; i < 8; i += 2) exchange(v, i, i + 1);
}

// Puts the experts at .. at + TURN into the sorted list.
void turn(uint64_t rows[LANES], uint64_t bias_row, uint cursor, inout uint64_t list[LIST]) {
  uint at = position_of(cursor), x[TURN], bias[TURN / LANES];
  uint bias_mask = has(kMoeGateFlagBias) ? 0xffffffffu : 0;
  uint zero = uint(int(pc.flags) >> 31);  // unknown to the compiler, which would undo the transposition
  [[unroll]] for (uint c = 0; c < TURN; c += LANES) {
    uint64_t offset = (uint64_t(at) + c) * 4ul;
    bias[c / LANES] = load_vector(bias_row + offset) & bias_mask;
    [[unroll]] for (uint l = 0; l < LANES; l++) x[c + l] = load_vector(rows[l] + offset) ^ zero;
    transpose(x, c, gl_SubgroupInvocationID ^ zero);
  }
  [[unroll]] for (uint half_ = 0; half_ < TURN; half_ += LIST) {
    // Always so. A branch ends a basic block, which the compiler would fill with scores and spill them.
    if (pc.tokens > 0) {
      uint64_t v[LIST];
      [[unroll]] for (uint i = 0; i < LIST; i++) {
        uint e = half_ + i;
        float b = uintBitsToFloat(subgroupBroadcast(bias[e / LANES], e % LANES));
        uint key = key_of(x[e], score_of(x[e]), b);
        // The index counts from the invocation's own number: a vector, which packs in two permutations.
        v[i] = uint64_t(~(cursor + e)) | uint64_t(key) << 32;
      }
      sort(v);
      merge(list, v);
    }
  }
}

uint key_in(uint64_t candidate) { return uint(candidate >> 32); }
uint expert_in(uint64_t candidate) { return ~uint(candidate) - gl_SubgroupInvocationID; }

void main() {
  uint first = gl_WorkGroupID.x * LANES, last = pc.tokens - 1;
  uint64_t stride = uint64_t(pc.logits_stride) * 4;
  uint64_t rows[LANES];
  [[unroll]] for (uint l = 0; l < LANES; l++) rows[l] = pc.logits + min(first + l, last) * stride;
  // Read with and without a bias, so a legal address; not by a choice, which would make it a vector.
  uint64_t with_bias = uint64_t(0) - uint64_t(pc.flags / kMoeGateFlagBias & 1);
  uint64_t bias_row = pc.logits ^ ((pc.logits ^ pc.bias) & with_bias);
  uint size = has(kMoeGateFlagGroups) ? pc.experts / max(pc.n_group, 1) : pc.experts;

  // Groups by rank: key above the complement of the place, so that of equal groups the first wins.
  uint64_t rank[KEPT], kept[KEPT * LIST];
  [[unroll]] for (uint i = 0; i < KEPT; i++) rank[i] = uint64_t(i);
  [[unroll]] for (uint i = 0; i < KEPT * LIST; i++) kept[i] = uint64_t(0);
  uint cursor = start_at(0);
  [[dont_unroll]] do {
    uint end = position_of(cursor) + size;
    uint64_t list[LIST];
    [[unroll]] for (uint i = 0; i < LIST; i++) list[i] = uint64_t(0);
    [[dont_unroll]] do {
      turn(rows, bias_row, cursor, list);
      cursor += TURN;
    } while (position_of(cursor) < end);
    uint group_key = key_in(list[0]);
    if (has(kMoeGateFlagGroupTop2)) {
      precise float sum = order_key_value(group_key) + order_key_value(key_in(list[1]));
      group_key = order_key(floatBitsToUint(sum));
    }
    // The better of it and the worst so far stays.
    uint64_t new_rank = uint64_t(group_key) << 32 | uint64_t(~cursor), worst = rank[0];
    [[unroll]] for (uint g = 1; g < KEPT; g++) worst = min(worst, rank[g]);
    uint64_t lost = min(worst, new_rank);
    [[unroll]] for (uint g = 0; g < KEPT; g++) {
      bool replaced = rank[g] == lost;
      rank[g] = replaced ? new_rank : rank[g];
      [[unroll]] for (uint i = 0; i < LIST; i++) {
        kept[g * LIST + i] = replaced ? list[i] : kept[g * LIST + i];
      }
    }
  } while (position_of(cursor) < pc.experts);

  uint64_t best[LIST];
  [[unroll]] for (uint i = 0; i < LIST; i++) best[i] = kept[i];
  [[unroll]] for (uint g = 1; g < KEPT; g++) {
    uint64_t other[LIST];
    [[unroll]] for (uint i = 0; i < LIST; i++) other[i] = kept[g * LIST + i];
    merge(best, other);
  }

  uint token = first + gl_SubgroupInvocationID;
  uint64_t row = pc.logits + min(token, last) * stride;
  // Nothing above -infinity: the lowest unused experts fill up, with weight 0; they are below LIST.
  uint expert[TOP_K], used = 0;
  float score[TOP_K];
  precise float sum = 0.0;
  [[unroll]] for (uint i = 0; i < TOP_K; i++) {
    expert[i] = expert_in(best[i]);
    if (key_in(best[i]) > kOrderKeyMinusInfinity && expert[i] < 32) used |= 1u << expert[i];
  }
  [[unroll]] for (uint i = 0; i < TOP_K; i++) {
    bool found = key_in(best[i]) > kOrderKeyMinusInfinity;
    uint unused = uint(findLSB(~used));
    expert[i] = found ? expert[i] : unused;
    used |= found ? 0 : 1u << unused;
    score[i] = found ? score_of(UintIn(row + expert[i] * 4ul).v) : 0.0;
    sum += score[i];
  }
  if (token > last) return;
  [[unroll]] for (uint i = 0; i < TOP_K; i++) {
    uint64_t index = uint64_t(token) * TOP_K + i;
    float w = score[i];
    if (has(kMoeGateFlagNorm)) w = w / (sum + 1e-20);
    UintOut(pc.indices + index * 4).v = expert[i];
    FloatOut(pc.weights + index * 4).v = w * pc.scaling;
  }
}
