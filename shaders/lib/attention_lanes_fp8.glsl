// lib/attention_lanes.glsl over rows of an FP8 cache (layout/kv_page.h): the sums of lib/attention.glsl's
// FP8 form, hence its bits. A code becomes a float by a table of 256, which is one scalar load and one
// broadcasting load (kernels/vk/e4m3_table.h); arithmetic on the bits would take as long as the sums.
#ifndef HADAL_ATTENTION_LANES_FP8_GLSL_
#define HADAL_ATTENTION_LANES_FP8_GLSL_

#include "attention_lanes.glsl"

float load_code(uint64_t table, uint64_t address) {
  return FloatIn(table + uint64_t(U8In(address).v) * 4ul).v;
}
// lib/attention.glsl carries codes and scales with factors 2^-8 and 2^8, which changes no bit here.
float load_scale(uint64_t row, uint rank, uint group) {
  return FloatIn(row + uint64_t(kv_fp8_scales_offset(rank)) + uint64_t(group * 4)).v;
}

// sum += query * code over the channels [begin, end), multiples of STEP.
void add_code_products(uint64_t query, uint64_t key[TILE_KEYS], uint64_t table, uint begin, uint end,
                       inout float sum[TILE_KEYS][VECTORS]) {
  uint cursor = start_at(begin), d;
  if (begin < end) [[dont_unroll]] do {
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
        float k = load_code(table, key[i] + at + uint64_t(u));
        [[unroll]] for (uint v = 0; v < VECTORS; v++) sum[i][v] = mac(q[v], k, sum[i][v]);
      }
    }
  } while (d + STEP < end);
}

// s = the inner products of TILE_KEYS rows with the packed queries: the groups of latents, then the key.
void fp8_scores(uint64_t query, uint64_t row[TILE_KEYS], uint64_t table, uint rank, uint rope,
                out float s[TILE_KEYS][VECTORS]) {
  [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) {
    [[unroll]] for (uint v = 0; v < VECTORS; v++) s[i][v] = 0.0;
  }
  uint cursor = start_at(0), group;
  if (rank > 0) [[dont_unroll]] do {
    group = position_of(cursor);
    cursor += kFp8Block;
    float sum[TILE_KEYS][VECTORS];
    [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) {
      [[unroll]] for (uint v = 0; v < VECTORS; v++) sum[i][v] = 0.0;
    }
    add_code_products(query, row, table, group, min(group + kFp8Block, rank), sum);
    [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) {
      float scale = load_scale(row[i], rank, group / kFp8Block);
      [[unroll]] for (uint v = 0; v < VECTORS; v++) s[i][v] = mac(sum[i][v], scale, s[i][v]);
    }
  } while (group + kFp8Block < rank);
  uint64_t key[TILE_KEYS];
  [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) key[i] = row[i] + uint64_t(rope > 0 ? kv_fp8_rope_offset(rank) : 0u);
  add_scores(kKvFormatBf16, query + uint64_t(rank) * uint64_t(kRowsBytes), key, rope, s);
}

// add_values, every row seeing the block's first `last` keys. row: of the block's key 0; the tile's
// channels are of one group.
void add_fp8_values(uint64_t weights, uint64_t factor, uint64_t row, uint64_t row_bytes, uint64_t table,
                    uint rank, uint channel, uint last, inout float acc[TILE_CHANNELS][VECTORS]) {
  uint group = channel / kFp8Block;
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    float alpha = load_lanes(factor + uint64_t(v * kVectorBytes));
    [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
      precise float scaled = acc[c][v] * alpha;
      acc[c][v] = scaled;
    }
  }
  uint whole = last & ~(kTurnKeys - 1), cursor = start_at(0), key;
  if (whole > 0) [[dont_unroll]] do {
    key = position_of(cursor);
    cursor += kTurnKeys;
    [[unroll]] for (uint i = 0; i < kTurnKeys; i++) {
      uint64_t at = row + uint64_t(key) * row_bytes + uint64_t(i) * row_bytes;
      float scale = load_scale(at, rank, group), p[VECTORS];
      [[unroll]] for (uint v = 0; v < VECTORS; v++) {
        precise float weight = load_lanes(weights + uint64_t(key) * uint64_t(kRowsBytes) +
                                          uint64_t(i * kRowsBytes + v * kVectorBytes)) * scale;
        p[v] = weight;
      }
      [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
        float x = load_code(table, at + uint64_t(channel) + uint64_t(c));
        [[unroll]] for (uint v = 0; v < VECTORS; v++) acc[c][v] = mac(p[v], x, acc[c][v]);
      }
    }
  } while (key + kTurnKeys < whole);
  if (whole < last) {
    cursor = start_at(whole);
    [[dont_unroll]] do {
      key = position_of(cursor);
      cursor++;
      uint64_t at = row + uint64_t(key) * row_bytes;
      float scale = load_scale(at, rank, group), p[VECTORS];
      [[unroll]] for (uint v = 0; v < VECTORS; v++) {
        precise float weight = load_lanes(weights + uint64_t(key) * uint64_t(kRowsBytes) +
                                          uint64_t(v * kVectorBytes)) * scale;
        p[v] = weight;
      }
      [[unroll]] for (uint c = 0; c < TILE_CHANNELS; c++) {
        float x = load_code(table, at + uint64_t(channel) + uint64_t(c));
        [[unroll]] for (uint v = 0; v < VECTORS; v++) acc[c][v] = mac(p[v], x, acc[c][v]);
      }
    } while (key + 1 < last);
  }
}

#endif  // HADAL_ATTENTION_LANES_FP8_GLSL_
