// Attention with invocations along the rows (queries, or heads of one query) that share keys and
// values, for CPU drivers that keep uniform values in scalar registers (Caps::scalar_uniforms). Keys and
// values are uniform scalars that the arithmetic broadcasts; what differs by row is vectors, read and
// written as such. The workgroup is one subgroup: no barrier, no gather, no reduction.
//
// Needs before the include: VECTORS (vectors of rows a workgroup holds), TILE_KEYS and TILE_CHANNELS
// (keys and value channels of a register tile; the first divides 64), RUN (blocks of 64 keys whose
// probabilities are kept before the values are added) and lib/prelude.glsl.
//
// Every operation and its order are lib/attention.glsl's, hence the bits: blocks of 64 keys from
// absolute multiples of 64, a score over its channels ascending, l and o over the keys ascending, one
// rescaling per block. Only the time differs at which a block's keys reach o: the probabilities and
// factors of a run of blocks are made first, and a tile of channels then walks the run with its sums in
// registers.
//
// Rules for this driver, each with its measurement in kernels/mla_decode.md:
// - A loop's position is read from invocation 0 of a cursor that differs by invocation, so that it stays
//   a scalar; the cursor must not start as gl_SubgroupInvocationID itself.
// - Every loop stands in a branch of its own condition. Otherwise its body dominates what follows, later
//   equal expressions (each `lane ==`, each offset) are taken from the body, and what leaves a loop
//   becomes a vector in memory.
#ifndef HADAL_ATTENTION_LANES_GLSL_
#define HADAL_ATTENTION_LANES_GLSL_

#include "../layout/attention_lanes.h"
#include "../layout/kv_page.h"
#include "attention_result.glsl"
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require

const uint LANES = gl_WorkGroupSize.x;
const uint ROWS = LANES * VECTORS;
const uint kRowsBytes = ROWS * 4;    // a row of the worker's area: one float per attention row
const uint kVectorBytes = LANES * 4;
const uint STEP = kAttentionLanesStep;  // channels per turn of a score's loop
const uint kTurnKeys = 8;               // keys per turn of a value's loop

float minus_infinity() { return uintBitsToFloat(0xff800000u); }

uint start_at(uint position) { return position + 2 * gl_SubgroupInvocationID; }
uint position_of(uint cursor) { return subgroupBroadcast(cursor, 0); }

// Neighbouring floats, one per invocation.
float load_lanes(uint64_t address) {
  uint result = 0;
  [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
    uint word = UintIn(address + uint64_t(lane * 4)).v;
    result = gl_SubgroupInvocationID == lane ? word : result;
  }
  return uintBitsToFloat(result);
}

// A row of the worker's area: every vector's lanes. A store is a scatter, whose time counts elements and
// not bytes, so two vectors are stored as one of 64-bit words; values that change lanes from one known
// lane to another are permutations.
void store_row(uint64_t address, float row[VECTORS]) {
  if (VECTORS == 2 && LANES > 1) {
    uint even = 0, odd = 0;
    [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
      uint from = 2 * lane % LANES, part = 2 * lane / LANES;
      uint first = floatBitsToUint(subgroupBroadcast(row[part % VECTORS], from));
      uint second = floatBitsToUint(subgroupBroadcast(row[part % VECTORS], (from + 1) % LANES));
      even = gl_SubgroupInvocationID == lane ? first : even;
      odd = gl_SubgroupInvocationID == lane ? second : odd;
    }
    U64Out(address + gl_SubgroupInvocationID * 8ul).v = uint64_t(even) | uint64_t(odd) << 32;
  } else {
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      FloatOut(address + uint64_t(v * kVectorBytes) + gl_SubgroupInvocationID * 4ul).v = row[v];
    }
  }
}

// The memory of a worker: what its rows need between the phases, [.., ROWS] floats each.
struct LaneArea {
  uint64_t query;    // [channels of a key]
  uint64_t sums;     // [value channels]: o between runs; unpack_rows reads on into the weights
  uint64_t weights;  // [RUN * 64]: scores, then probabilities
  uint64_t factors;  // [RUN]: what a block's start multiplies l and o by
};

LaneArea lane_area(uint64_t areas, uint worker, uint key_channels, uint value_channels) {
  uint64_t base = areas + uint64_t(worker) * uint64_t(key_channels + value_channels +
                                                      RUN * (kKvPageTokens + 1)) * uint64_t(kRowsBytes);
  LaneArea area;
  area.query = base;
  area.sums = base + uint64_t(key_channels) * uint64_t(kRowsBytes);
  area.weights = area.sums + uint64_t(value_channels) * uint64_t(kRowsBytes);
  area.factors = area.weights + uint64_t(RUN * kKvPageTokens * kRowsBytes);
  return area;
}

// Workers share `items` in blocks of neighbours, `block` items that read the same keys where that leaves
// a block for every worker, in turn: the item of a worker's turn, past the end in its last ones.
uint lane_block(uint items, uint block) { return items / block < gl_NumWorkGroups.x ? 1 : block; }
uint lane_item(uint turn, uint items, uint block) {
  uint size = lane_block(items, block);
  return (turn / size * gl_NumWorkGroups.x + gl_WorkGroupID.x) * size + turn % size;
}
uint lane_turns(uint items, uint block) {
  uint size = lane_block(items, block), all = gl_NumWorkGroups.x * size;
  return (items + all - 1) / all * size;
}

// Row number `first + v * LANES + lane`; those past the end repeat the last.
uint lane_row(uint first, uint v, uint lane, uint last) {
  return min(first + v * LANES + lane, last);
}

// Transposes channels 0 .. channels (a multiple of STEP; 0: nothing) of the rows to area rows.
// base: row 0's; stride in bytes.
void pack_rows(uint64_t base, uint64_t stride, uint first, uint last, uint channels, uint64_t to) {
  uint cursor = start_at(0), d;
  if (channels > 0) [[dont_unroll]] do {
    d = position_of(cursor);
    cursor += STEP;
    float q[STEP][VECTORS];
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      [[unroll]] for (uint u = 0; u < STEP; u++) q[u][v] = 0.0;
      [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
        uint64_t from = base + uint64_t(lane_row(first, v, lane, last)) * stride + uint64_t(d) * 4ul;
        [[unroll]] for (uint u = 0; u < STEP; u++) {
          float x = FloatIn(from + uint64_t(u * 4)).v;
          q[u][v] = gl_SubgroupInvocationID == lane ? x : q[u][v];
        }
      }
    }
    [[unroll]] for (uint u = 0; u < STEP; u++) {
      store_row(to + uint64_t(d) * uint64_t(kRowsBytes) + uint64_t(u * kRowsBytes), q[u]);
    }
  } while (d + STEP < channels);
}

// Element `index` of a row of keys or values; `format` is a constant of kv_page.h.
float load_element(uint format, uint64_t row, uint64_t index) {
  if (format == kKvFormatBf16) return bf16_decode(uint(U16In(row + index * 2ul).v));
  return FloatIn(row + index * 4ul).v;
}

// s += the inner products of TILE_KEYS keys with the packed queries over `channels` channels (a multiple
// of STEP; 0: none).
void add_scores(uint format, uint64_t query, uint64_t key[TILE_KEYS], uint channels,
          inout float s[TILE_KEYS][VECTORS]) {
  uint cursor = start_at(0), d;
  if (channels > 0) [[dont_unroll]] do {
    d = position_of(cursor);
    cursor += STEP;
    uint64_t at = uint64_t(d);
    [[unroll]] for (uint u = 0; u < STEP; u++) {
      float q[VECTORS];
      [[unroll]] for (uint v = 0; v < VECTORS; v++) {
        q[v] = load_lanes(query + at * uint64_t(kRowsBytes) +
                          uint64_t(u * kRowsBytes + v * kVectorBytes));
      }
      [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) {
        float k = load_element(format, key[i], at + uint64_t(u));
        [[unroll]] for (uint v = 0; v < VECTORS; v++) s[i][v] = mac(q[v], k, s[i][v]);
      }
    }
  } while (d + STEP < channels);
}


// Scales the scores of keys first .. first + TILE_KEYS of a block, keeps them and raises `top`.
void keep_scores(float s[TILE_KEYS][VECTORS], float scale, uint first, uint limit[VECTORS],
                 uint64_t weights, inout float top[VECTORS]) {
  [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) {
    float row[VECTORS];
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      precise float scaled = s[i][v] * scale;
      top[v] = max(top[v], first + i < limit[v] ? scaled : minus_infinity());
      row[v] = scaled;
    }
    store_row(weights + uint64_t(first) * uint64_t(kRowsBytes) + uint64_t(i * kRowsBytes), row);
  }
}

// A block's scores to probabilities, in place; m, l and the block's factor.
void softmax_block(uint64_t weights, uint64_t factor, uint last, uint limit[VECTORS],
                   float top[VECTORS], inout float m[VECTORS], inout float l[VECTORS]) {
  float alpha[VECTORS];
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    float m_new = max(m[v], top[v]);
    alpha[v] = m_new == m[v] ? 1.0 : m[v] == minus_infinity() ? 0.0 : exp(m[v] - m_new);
    m[v] = m_new;
    precise float rescaled = l[v] * alpha[v];
    l[v] = rescaled;
  }
  store_row(factor, alpha);
  uint cursor = start_at(0), key;
  if (last > 0) [[dont_unroll]] do {
    key = position_of(cursor);
    cursor++;
    uint64_t at = weights + uint64_t(key) * uint64_t(kRowsBytes);
    float row[VECTORS];
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      float x = load_lanes(at + uint64_t(v * kVectorBytes)) - m[v];
      // A NaN score makes its row NaN; max() and some drivers' exp() would lose it.
      float p = x <= 0.0 ? exp(x) : uintBitsToFloat(0x7fc00000u);
      p = key < limit[v] ? p : 0.0;
      precise float sum = l[v] + p;
      l[v] = sum;
      row[v] = p;
    }
    store_row(at, row);
  } while (key + 1 < last);
}

// acc += p * value for the keys of one block: of its first `last` keys the first `all` are seen by every
// row, row by row `limit` of them. value: the tile's first channel of the block's key 0.
void add_values(uint format, uint64_t weights, uint64_t factor, uint64_t value, uint64_t value_stride, uint all,
          uint last, uint limit[VECTORS], inout float acc[TILE_CHANNELS][VECTORS]) {
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    float alpha = load_lanes(factor + uint64_t(v * kVectorBytes));
    [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
      precise float scaled = acc[c][v] * alpha;
      acc[c][v] = scaled;
    }
  }
  uint whole = all & ~(kTurnKeys - 1), cursor = start_at(0), key;
  if (whole > 0) [[dont_unroll]] do {
    key = position_of(cursor);
    cursor += kTurnKeys;
    [[unroll]] for (uint i = 0; i < kTurnKeys; i++) {
      float p[VECTORS];
      [[unroll]] for (uint v = 0; v < VECTORS; v++) {
        p[v] = load_lanes(weights + uint64_t(key) * uint64_t(kRowsBytes) +
                          uint64_t(i * kRowsBytes + v * kVectorBytes));
      }
      uint64_t row = value + uint64_t(key) * value_stride + uint64_t(i) * value_stride;
      [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
        float x = load_element(format, row, uint64_t(c));
        [[unroll]] for (uint v = 0; v < VECTORS; v++) acc[c][v] = mac(p[v], x, acc[c][v]);
      }
    }
  } while (key + kTurnKeys < whole);
  if (whole < last) {
    cursor = start_at(whole);
    [[dont_unroll]] do {
      key = min(position_of(cursor), last - 1);
      cursor++;
      uint64_t row = value + uint64_t(key) * value_stride;
      float p[VECTORS];
      [[unroll]] for (uint v = 0; v < VECTORS; v++) {
        p[v] = load_lanes(weights + uint64_t(key) * uint64_t(kRowsBytes) +
                          uint64_t(v * kVectorBytes));
      }
      [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
        float x = load_element(format, row, uint64_t(c));
        [[unroll]] for (uint v = 0; v < VECTORS; v++) {
          float sum = mac(p[v], x, acc[c][v]);
          acc[c][v] = key < limit[v] ? sum : acc[c][v];
        }
      }
    } while (key + 1 < last);
  }
}
// The sums that an item's earlier runs left; zeros in its first. There the loads, whose values are not
// used, read the weights: a page that nothing was written to yet costs a fault, or an assist, each time.
void load_sums(LaneArea area, uint channel, bool first_run,
               out float acc[TILE_CHANNELS][VECTORS]) {
  uint64_t rows = first_run ? area.weights
                            : area.sums + uint64_t(channel) * uint64_t(kRowsBytes);
  [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      float old = load_lanes(rows + uint64_t(c * kRowsBytes + v * kVectorBytes));
      acc[c][v] = first_run ? 0.0 : old;
    }
  }
}
void store_sums(uint64_t sums, uint channel, float acc[TILE_CHANNELS][VECTORS]) {
  [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
    store_row(sums + uint64_t(channel) * uint64_t(kRowsBytes) + uint64_t(c * kRowsBytes), acc[c]);
  }
}

// Transposes the sums back to `rows` rows of floats, or of bfloat16, divided by the rows' l in
// area.factors if `divide`. base: the operand; first and stride: elements to the first row and from row
// to row. A row at a time: a scatter across rows, which lie a multiple of 4 KiB apart, costs ten times as
// much.
void unpack_rows(LaneArea area, uint channels, uint rows, uint64_t base, uint64_t first, uint stride,
                 bool divide, bool bf16) {
  bool pairs = !bf16 && ((uint(base) | (uint(first) | stride) << 2) & 7u) == 0;
  uint row_cursor = start_at(0), row;
  if (rows > 0) [[dont_unroll]] do {
    row = position_of(row_cursor);
    row_cursor++;
    uint64_t to = first + uint64_t(row) * uint64_t(stride), at = uint64_t(row * 4);
    float l = FloatIn(area.factors + at).v;
    uint cursor = start_at(0), channel;
    if (channels > 0) [[dont_unroll]] do {
      channel = position_of(cursor);
      cursor += 2 * LANES;
      // Invocation i owns channels 2i and 2i + 1.
      vec2 o = vec2(0.0);
      uint64_t from = area.sums + uint64_t(channel) * uint64_t(kRowsBytes) + at;
      [[unroll]] for (uint lane = 0; lane < LANES; lane++) {
        float even = FloatIn(from + uint64_t(2 * lane * kRowsBytes)).v;
        float odd = FloatIn(from + uint64_t((2 * lane + 1) * kRowsBytes)).v;
        o.x = gl_SubgroupInvocationID == lane ? even : o.x;
        o.y = gl_SubgroupInvocationID == lane ? odd : o.y;
      }
      if (divide) o = attention_normalise(o, l);
      uint own = channel + 2 * gl_SubgroupInvocationID;
      if (own < channels) {
        if (pairs) {
          U64Out(base + (to + own) * 4ul).v =
              uint64_t(floatBitsToUint(o.x)) | uint64_t(floatBitsToUint(o.y)) << 32;
        } else {
          attention_store(bf16, base, to + own, o);
        }
      }
    } while (channel + 2 * LANES < channels);
  } while (row + 1 < rows);
}

// Sums of rows that see no key.
void clear_sums(LaneArea area, uint channels) {
  float zeros[VECTORS];
  [[unroll]] for (uint v = 0; v < VECTORS; v++) zeros[v] = 0.0;
  uint cursor = start_at(0), channel;
  if (channels > 0) [[dont_unroll]] do {
    channel = position_of(cursor);
    cursor++;
    store_row(area.sums + uint64_t(channel) * uint64_t(kRowsBytes), zeros);
  } while (channel + 1 < channels);
}

#endif  // HADAL_ATTENTION_LANES_GLSL_
