#version 460
#extension GL_GOOGLE_include_directive : require
// mla_decode with invocations along heads, for drivers whose invocations are lanes of a CPU's vector
// (lib/attention_lanes.glsl). A workgroup is a worker: it takes items in turn (lane_item), an item being
// ROWS heads of one split of 1,024 keys of one token, and keeps its packed queries, weights and sums in
// memory of its own. Operations, order and bits are those of mla_decode.comp.
#include "lib/prelude.glsl"
#include "layout/kv_page.h"
#include "layout/mla_decode.h"
#include "layout/attention_lanes.h"

layout(constant_id = kAttentionLanesSpecVectors) const uint VECTORS = 2;
layout(constant_id = kAttentionLanesSpecKeys) const uint TILE_KEYS = 8;
layout(constant_id = kAttentionLanesSpecChannels) const uint TILE_CHANNELS = 8;
layout(constant_id = kAttentionLanesSpecRun) const uint RUN = 4;
layout(constant_id = kMlaDecodeSpecFormat) const uint FORMAT = kKvFormatF32;
layout(constant_id = kMlaDecodeSpecOutBf16) const uint OUT_BF16 = 0;

#include "lib/attention_lanes.glsl"
#include "lib/attention_lanes_fp8.glsl"
#include "lib/attention_result.glsl"

layout(push_constant, scalar) uniform Push { MlaDecodeLanesPush pc; };

#include "lib/mla_decode_token.glsl"

uint rank() { return pc.widths & 0xffffu; }
uint rope() { return pc.widths >> 16; }
uint row_bytes() { return pc.row_stride * kv_stride_unit(FORMAT); }
uint splits() {
  return max((pc.max_kv_len + kMlaDecodeSplitKeys - 1) / kMlaDecodeSplitKeys, 1);
}
uint64_t partials() {
  return splits() > 1 ? uint64_t(pc.tokens) * splits() * heads() : 0ul;
}

// The part of a sequence that an item owns.
struct Item {
  uint token, head_begin, begin, end;  // keys
  uint64_t table;
  uint64_t partial;  // index of the token's and split's first partial
};

// The block's first row. A page past the cache makes the row NaN; the first page is read instead.
uint64_t block_row(Item item, uint block, out bool inside) {
  uint page = UintIn(item.table + uint64_t(block / kKvPageTokens) * 4ul).v;
  uint64_t row = uint64_t(page) * kKvPageTokens;
  inside = row + min(item.end - block, kKvPageTokens) <= pc.cache_rows;
  return pc.cache + (inside ? row : 0ul) * uint64_t(row_bytes());
}

// Probabilities and factors of the blocks from `run` to `run_end`.
void weigh_run(Item item, LaneArea area, uint run, uint run_end, inout float m[VECTORS],
               inout float l[VECTORS]) {
  uint cursor = start_at(run), block;
  if (run < run_end) [[dont_unroll]] do {
    block = position_of(cursor);
    cursor += kKvPageTokens;
    uint seen = min(run_end - block, kKvPageTokens);
    bool inside;
    uint64_t row = block_row(item, block, inside);
    float scale = inside ? pc.scale : uintBitsToFloat(0x7fc00000u);
    uint64_t weights = area.weights + uint64_t(block - run) * uint64_t(kRowsBytes);
    float top[VECTORS];
    uint limit[VECTORS];
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      top[v] = minus_infinity();
      limit[v] = seen;
    }
    uint key_cursor = start_at(0), first;
    if (seen > 0) [[dont_unroll]] do {
      first = position_of(key_cursor);
      key_cursor += TILE_KEYS;
      uint64_t key[TILE_KEYS];
      float s[TILE_KEYS][VECTORS];
      [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) {
        key[i] = row + uint64_t(min(first + i, seen - 1)) * uint64_t(row_bytes());
        [[unroll]] for (uint v = 0; v < VECTORS; v++) s[i][v] = 0.0;
      }
      if (FORMAT == kKvFormatFp8) {
        fp8_scores(area.query, key, pc.e4m3_table, rank(), rope(), s);
      } else {
        add_scores(FORMAT, area.query, key, rank() + rope(), s);
      }
      keep_scores(s, scale, first, limit, weights, top);
    } while (first + TILE_KEYS < seen);
    softmax_block(weights, area.factors + uint64_t((block - run) / kKvPageTokens * kRowsBytes), seen,
                  limit, top, m, l);
  } while (block + kKvPageTokens < run_end);
}

// o of the item, a tile of channels at a time.
void add_run(Item item, LaneArea area, uint run, uint run_end) {
  uint channel_cursor = start_at(0), channel;
  if (rank() > 0) [[dont_unroll]] do {
    channel = position_of(channel_cursor);
    channel_cursor += TILE_CHANNELS;
    float acc[TILE_CHANNELS][VECTORS];
    load_sums(area, channel, run == item.begin, acc);
    uint cursor = start_at(run), block;
    if (run < run_end) [[dont_unroll]] do {
      block = position_of(cursor);
      cursor += kKvPageTokens;
      uint seen = min(run_end - block, kKvPageTokens), limit[VECTORS];
      [[unroll]] for (uint v = 0; v < VECTORS; v++) limit[v] = seen;
      bool inside;
      uint64_t row = block_row(item, block, inside);
      uint64_t weights = area.weights + uint64_t(block - run) * uint64_t(kRowsBytes);
      uint64_t factor = area.factors + uint64_t((block - run) / kKvPageTokens * kRowsBytes);
      if (FORMAT == kKvFormatFp8) {
        add_fp8_values(weights, factor, row, uint64_t(row_bytes()), pc.e4m3_table, rank(), channel, seen,
                       acc);
      } else {
        add_values(FORMAT, weights, factor, row + uint64_t(channel * kv_stride_unit(FORMAT)),
                   uint64_t(row_bytes()), seen, seen, limit, acc);
      }
    } while (block + kKvPageTokens < run_end);
    store_sums(area.sums, channel, acc);
  } while (channel + TILE_CHANNELS < rank());
}

// o and lse, or the split's unnormalised o, m and l. A token without keys gives 0 and -infinity.
void store_result(Item item, LaneArea area, float m[VECTORS], float l[VECTORS]) {
  bool partial = splits() > 1;
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    uint head = item.head_begin + v * LANES + gl_SubgroupInvocationID;
    if (head < heads()) {
      if (partial) {
        FloatOut(pc.scratch + (item.partial + head) * 8ul).v = m[v];
        FloatOut(pc.scratch + (item.partial + head) * 8ul + 4ul).v = l[v];
      } else if (pc.lse != 0) {
        FloatOut(pc.lse + (uint64_t(item.token) * heads() + head) * 4ul).v =
            attention_lse(m[v], l[v]);
      }
    }
  }
  store_row(area.factors, l);
  uint rows = min(ROWS, heads() - item.head_begin);
  if (partial) {
    unpack_rows(area, rank(), rows, pc.scratch + partials() * 8ul,
                (item.partial + item.head_begin) * uint64_t(rank()), rank(), false, false);
  } else {
    unpack_rows(area, rank(), rows, pc.o,
                uint64_t(item.token) * uint64_t(pc.o_row_stride) +
                    uint64_t(item.head_begin) * uint64_t(pc.o_head_stride),
                pc.o_head_stride, true, OUT_BF16 != 0);
  }
}

void attend(Item item, LaneArea area) {
  uint last_head = heads() - 1;
  uint64_t token = uint64_t(item.token);
  pack_rows(pc.q_latent + token * uint64_t(pc.q_latent_row_stride) * 4ul,
               uint64_t(pc.q_latent_head_stride) * 4ul, item.head_begin, last_head, rank(), area.query);
  pack_rows(pc.q_pe + token * uint64_t(pc.q_pe_row_stride) * 4ul,
               uint64_t(pc.q_pe_head_stride) * 4ul, item.head_begin, last_head, rope(),
               area.query + uint64_t(rank()) * uint64_t(kRowsBytes));
  float m[VECTORS], l[VECTORS];
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    m[v] = minus_infinity();
    l[v] = 0.0;
  }
  uint cursor = start_at(item.begin), run;
  if (item.begin < item.end) [[dont_unroll]] do {
    run = position_of(cursor);
    cursor += RUN * kKvPageTokens;
    uint run_end = min(run + RUN * kKvPageTokens, item.end);
    weigh_run(item, area, run, run_end, m, l);
    add_run(item, area, run, run_end);
  } while (run + RUN * kKvPageTokens < item.end);

  store_result(item, area, m, l);
}

void main() {
  uint groups = (heads() + ROWS - 1) / ROWS;
  uint items = groups * splits() * pc.tokens, worker = gl_WorkGroupID.x;
  uint64_t areas = (pc.scratch + partials() * uint64_t(rank() + 2) * 4ul + 63ul) & ~63ul;
  LaneArea area = lane_area(areas, worker, rank() + rope(), rank());
  uint cursor = start_at(0), turn;
  if (worker < items) [[dont_unroll]] do {
    turn = position_of(cursor);
    cursor++;
    uint number = lane_item(turn, items, groups);
    Item item;
    uint split = number / groups % splits();
    item.token = min(number / (groups * splits()), pc.tokens - 1);
    item.head_begin = number % groups * ROWS;
    item.begin = split * kMlaDecodeSplitKeys;
    item.end = min(item.begin + kMlaDecodeSplitKeys, token_keys(item.token));
    item.table = token_table(item.token);
    item.partial = (uint64_t(item.token) * splits() + split) * uint64_t(heads());
    // A split past the token's end has nothing to say, unless it is the only one.
    if (number < items && (item.begin < item.end || splits() == 1)) attend(item, area);
  } while (turn + 1 < lane_turns(items, groups));
}
