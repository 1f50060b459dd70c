// Rows in groups of 128 channels, moved as vectors: the form of the row kernels for a CPU driver that
// keeps uniform values in scalar registers (Caps::scalar_uniforms). The workgroup is one subgroup of 4,
// 8 or 16, and nothing here needs a barrier, which would make a coroutine of the shader.
//
// What such a driver makes of it: a load whose address varies by invocation is a gather, but uniform
// loads of neighbouring words, each taken by one invocation, compile to one vector load. A store is
// a scatter, whose time counts elements, not bytes, so 64 bits are stored at a time. A value
// read from one known lane into another compiles to a part of a vector permutation.
//
// A loop that tests at its start runs a last turn with no invocation in it, in which uniform loads and
// subgroupBroadcast work nevertheless, but no assignment does: every address is clamped to the row, and a
// branch or return keeps a row without a whole group away from the loop. A loop tested at its end, in a
// branch, needs neither; which form is fast differs from kernel to kernel (fp8_quantize.md, Tried).
#ifndef HADAL_ROW_VECTORS_GLSL_
#define HADAL_ROW_VECTORS_GLSL_

#extension GL_KHR_shader_subgroup_ballot : require

#include "quantize.glsl"

// Vector v of a group holds the channels v * LANES + lane.
const uint LANES = gl_WorkGroupSize.x;
const uint VECTORS = QUANTIZE_ELEMS;

// A loop's position in a row. What a loop carries becomes a vector on such a driver, and an address
// made of it costs a trip through memory; a vector's known lane is a register move. So the position
// differs by invocation, and the first one's counts.
uint start_at(uint position) { return position + gl_SubgroupInvocationID; }
uint position_of(uint cursor) { return subgroupBroadcast(cursor, 0); }

// x of the invocation at this one's index ^ distance.
uint swap_lanes(uint x, uint distance) {
  uint result = x;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    uint other = subgroupBroadcast(x, lane ^ distance);
    result = gl_SubgroupInvocationID == lane ? other : result;
  }
  return result;
}
float swap_lanes(float x, uint distance) {
  return uintBitsToFloat(swap_lanes(floatBitsToUint(x), distance));
}

// Reads a word of every line of `bytes`, a multiple of 64, from `address`, so that the lines are in the cache when
// they are written: a scatter to a line elsewhere waits for it, one line after another, while loads wait side by side. Worth it
// where little is computed around it. Only of what this workgroup reads or writes: loads run even in a loop's last turn, with
// no invocation in it. The words go into `touched`, different by invocation and given to use_touched.
void touch(uint64_t address, uint bytes, inout uint touched) {
  [[unroll]] for (uint at = 0; at < bytes; at += 64) touched ^= UintIn(address + at).v;
}
// `never` is false, but no compiler may know.
void use_touched(uint touched, bool never, uint64_t address) {
  if (never) UintOut(address).v = touched;
}

// The words from `address`, one per invocation.
uint load_vector(uint64_t address) {
  uint result = 0;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    uint word = UintIn(address + lane * 4ul).v;
    result = gl_SubgroupInvocationID == lane ? word : result;
  }
  return result;
}

// 2 * LANES words to an address that is a multiple of 8: low's, then high's.
void store_vectors(uint64_t address, uint low, uint high) {
  uint even = 0, odd = 0;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    uint from = 2 * lane % LANES;
    uint first = subgroupBroadcast(lane < LANES / 2 ? low : high, from);
    uint second = subgroupBroadcast(lane < LANES / 2 ? low : high, from + 1);
    even = gl_SubgroupInvocationID == lane ? first : even;
    odd = gl_SubgroupInvocationID == lane ? second : odd;
  }
  U64Out(address + gl_SubgroupInvocationID * 8ul).v = uint64_t(even) | uint64_t(odd) << 32;
}

// A whole group.
void load_group(uint64_t group, out float v[VECTORS]) {
  [[unroll]] for (uint i = 0; i < VECTORS; i++) {
    v[i] = uintBitsToFloat(load_vector(group + i * LANES * 4ul));
  }
}

// A group of `count` > 0 channels; the others become 0.
void load_part(uint64_t group, uint count, out float v[VECTORS]) {
  [[unroll]] for (uint i = 0; i < VECTORS; i++) {
    uint c = i * LANES + gl_SubgroupInvocationID;
    float value = FloatIn(group + min(c, count - 1) * 4).v;
    v[i] = c < count ? value : 0.0;
  }
}

void store_group(uint64_t group, float v[VECTORS]) {
  if ((uint(group) & 7u) == 0) {
    [[unroll]] for (uint i = 0; i < VECTORS; i += 2) {
      store_vectors(group + i * LANES * 4ul, floatBitsToUint(v[i]), floatBitsToUint(v[i + 1]));
    }
  } else {
    [[unroll]] for (uint i = 0; i < VECTORS; i++) {
      FloatOut(group + (i * LANES + gl_SubgroupInvocationID) * 4ul).v = v[i];
    }
  }
}

void store_part(uint64_t group, uint count, float v[VECTORS]) {
  [[unroll]] for (uint i = 0; i < VECTORS; i++) {
    uint c = i * LANES + gl_SubgroupInvocationID;
    if (c < count) FloatOut(group + c * 4).v = v[i];
  }
}

// Adds the squares of one group to this invocation's chains (those of row_sum). A chain's channels are
// the four of a quad in one vector: four vectors change places with the invocations of a quad.
void add_squares(float x[VECTORS], inout float chains[ROW_CHAINS]) {
  bool bit0 = (gl_SubgroupInvocationID & 1) != 0, bit1 = (gl_SubgroupInvocationID & 2) != 0;
  [[unroll]] for (uint j = 0; j < ROW_CHAINS; j++) {
    float a0 = x[4 * j], a1 = x[4 * j + 1], a2 = x[4 * j + 2], a3 = x[4 * j + 3];
    float s0 = swap_lanes(a0, 1), s1 = swap_lanes(a1, 1), s2 = swap_lanes(a2, 1);
    float s3 = swap_lanes(a3, 1);
    float b0 = bit0 ? s1 : a0, b1 = bit0 ? a1 : s0, b2 = bit0 ? s3 : a2, b3 = bit0 ? a3 : s2;
    s0 = swap_lanes(b0, 2), s1 = swap_lanes(b1, 2), s2 = swap_lanes(b2, 2);
    s3 = swap_lanes(b3, 2);
    float c0 = bit1 ? s2 : b0, c1 = bit1 ? s3 : b1, c2 = bit1 ? b2 : s0, c3 = bit1 ? b3 : s1;
    chains[j] = mac(c3, c3, mac(c2, c2, mac(c1, c1, mac(c0, c0, chains[j]))));
  }
}

// The sum of all chains, by the tree of row_sum.
float sum_chains(float chains[ROW_CHAINS]) {
  precise float sums[32];
  [[unroll]] for (uint j = 0; j < ROW_CHAINS; j++) {
    [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
      sums[j * LANES + (lane & 3) * (LANES / 4) + lane / 4] = subgroupBroadcast(chains[j], lane);
    }
  }
  [[unroll]] for (uint i = 0; i < 16; i++) sums[i] = sums[i] + sums[i + 16];
  [[unroll]] for (uint i = 0; i < 8; i++) sums[i] = sums[i] + sums[i + 8];
  [[unroll]] for (uint i = 0; i < 4; i++) sums[i] = sums[i] + sums[i + 4];
  precise float sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  return sum;
}

// The largest magnitude of a group, as bits.
uint group_amax(float x[VECTORS]) {
  uint amax = 0;
  [[unroll]] for (uint i = 0; i < VECTORS; i++) {
    amax = max(amax, floatBitsToUint(x[i]) & 0x7fffffffu);
  }
  return subgroupMax(amax);
}

// Codes of four vectors, the first channel in the lowest byte. A vector's quad becomes the word of
// one invocation: bytes, then pairs, change places between the invocations of the quad, so that lane
// 4q + v has the channels 4q .. 4q+3 of vector v.
uint quad_codes(float x[VECTORS], uint first, float inverse) {
  uint bytes = fp8_encode(x[first], inverse) | (fp8_encode(x[first + 1], inverse) << 8) |
               (fp8_encode(x[first + 2], inverse) << 16) |
               (fp8_encode(x[first + 3], inverse) << 24);
  uint lane = gl_SubgroupInvocationID;
  uint other = swap_lanes(bytes, 1), turn = (lane & 1) == 0 ? 8 : 24;
  uint taken = (lane & 1) == 0 ? 0xff00ff00u : 0x00ff00ffu;
  bytes = (bytes & ~taken) | (((other << turn) | (other >> (32 - turn))) & taken);
  other = swap_lanes(bytes, 2);
  taken = (lane & 2) == 0 ? 0xffff0000u : 0x0000ffffu;
  return (bytes & ~taken) | (((other << 16) | (other >> 16)) & taken);
}

// Stores the codes of a group of `count` channels, eight per invocation; `whole` says that count is
// 128. q is a multiple of 8.
void store_codes(float x[VECTORS], Fp8Scale s, uint64_t q, bool whole, uint count) {
  // The word that follows a word's in memory is this far; one of two neighbours takes the other half.
  const uint step = LANES == 4 ? 1 : 4;
  uint lane = gl_SubgroupInvocationID;
  bool second = (lane & step) != 0;
  uint place = lane & ~step;
  uint inside = (place & 3) * LANES + place / 4 * 4 + (second ? 4 * LANES : 0);
  [[unroll]] for (uint first = 0; first < VECTORS; first += 8) {
    uint a = quad_codes(x, first, s.inverse) & s.mask;
    uint b = quad_codes(x, first + 4, s.inverse) & s.mask;
    uint next_a = swap_lanes(a, step), next_b = swap_lanes(b, step);
    uint low = second ? next_b : a, high = second ? b : next_a;
    uint64_t word = uint64_t(low) | uint64_t(high) << 32;
    uint c = first * LANES + inside;
    if (whole) {
      U64Out(q + uint64_t(c)).v = word;
    } else {
      for (uint end = min(c + 8, count); c < end; c++) {
        U8Out(q + c).v = uint8_t(uint(word));
        word >>= 8;
      }
    }
  }
}

#endif  // HADAL_ROW_VECTORS_GLSL_
