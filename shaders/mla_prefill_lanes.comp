#version 460
#extension GL_GOOGLE_include_directive : require
// mla_prefill with invocations along queries, for drivers whose invocations are lanes of a CPU's vector
// (lib/attention_lanes.glsl). A workgroup is a worker; an item is one head of ROWS queries of a sequence,
// over all the call's keys that they see. Operations, order and bits are those of mla_prefill.comp.
#include "lib/prelude.glsl"
#include "layout/attention_lanes.h"
#include "layout/mla_prefill.h"

layout(constant_id = kAttentionLanesSpecVectors) const uint VECTORS = 2;
layout(constant_id = kAttentionLanesSpecKeys) const uint TILE_KEYS = 8;
layout(constant_id = kAttentionLanesSpecChannels) const uint TILE_CHANNELS = 8;
layout(constant_id = kAttentionLanesSpecRun) const uint RUN = 4;
layout(constant_id = kMlaPrefillSpecBatch) const uint BATCH = 0;

layout(push_constant, scalar) uniform Push { MlaPrefillPush pc; };

#include "lib/attention_lanes.glsl"
#include "lib/attention_result.glsl"
#include "lib/mla_prefill_sequence.glsl"

struct Item {
  MlaPrefillSequence sequence;
  uint head, row_begin, last_row;  // queries, of the sequence
  uint end;                        // of the keys that any of them sees
};

uint row_of(Item item, uint v) {
  return lane_row(item.row_begin, v, gl_SubgroupInvocationID, item.last_row);
}
bool is_first(Item item) { return (item.sequence.flags & kMlaPrefillFlagFirst) != 0; }
uint64_t state_row(Item item, uint v) {
  return pc.state +
         (uint64_t(item.sequence.q_row + row_of(item, v)) * pc.heads + item.head) * 8ul;
}
// Row of kv and of k_pe of the key at an absolute position.
uint64_t key_row(Item item, uint position) {
  return uint64_t(item.sequence.kv_row + (position - item.sequence.kv_begin));
}

// How many of a block's keys each row sees; the most, and the least.
void block_limits(Item item, uint block, out uint limit[VECTORS], out uint all, out uint last) {
  uint first_visible = item.sequence.q_begin + item.row_begin + 1;
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    uint visible = min(item.end, item.sequence.q_begin + row_of(item, v) + 1);
    limit[v] = min(max(visible, block) - block, kKvPageTokens);
  }
  all = min(max(min(item.end, first_visible), block) - block, kKvPageTokens);
  last = min(item.end - block, kKvPageTokens);
}

void weigh_run(Item item, LaneArea area, uint run, uint run_end, inout float m[VECTORS],
               inout float l[VECTORS]) {
  uint64_t kv_stride = uint64_t(pc.kv_row_stride) * 4ul, pe_stride = uint64_t(pc.k_pe_stride) * 4ul;
  uint cursor = start_at(run), block;
  if (run < run_end) [[dont_unroll]] do {
    block = position_of(cursor);
    cursor += kKvPageTokens;
    uint limit[VECTORS], all, last;
    block_limits(item, block, limit, all, last);
    uint64_t row = key_row(item, block);
    uint64_t nope_row = pc.kv + row * kv_stride + uint64_t(item.head * (pc.nope + pc.v)) * 4ul;
    uint64_t rope_row = pc.k_pe + row * pe_stride;
    uint64_t weights = area.weights + uint64_t(block - run) * uint64_t(kRowsBytes);
    float top[VECTORS];
    [[unroll]] for (uint v = 0; v < VECTORS; v++) top[v] = minus_infinity();
    uint key_cursor = start_at(0), first;
    if (last > 0) [[dont_unroll]] do {
      first = position_of(key_cursor);
      key_cursor += TILE_KEYS;
      uint64_t nope[TILE_KEYS], rope[TILE_KEYS];
      float s[TILE_KEYS][VECTORS];
      [[unroll]] for (uint i = 0; i < TILE_KEYS; i++) {
        uint64_t key = uint64_t(min(first + i, last - 1));
        nope[i] = nope_row + key * kv_stride;
        rope[i] = rope_row + key * pe_stride;
        [[unroll]] for (uint v = 0; v < VECTORS; v++) s[i][v] = 0.0;
      }
      add_scores(kKvFormatF32, area.query, nope, pc.nope, s);
      add_scores(kKvFormatF32, area.query + uint64_t(pc.nope) * uint64_t(kRowsBytes), rope, pc.rope,
                 s);
      keep_scores(s, pc.scale, first, limit, weights, top);
    } while (first + TILE_KEYS < last);
    softmax_block(weights, area.factors + uint64_t((block - run) / kKvPageTokens * kRowsBytes), last,
                  limit, top, m, l);
  } while (block + kKvPageTokens < run_end);
}

void add_run(Item item, LaneArea area, uint run, uint run_end) {
  bool first_run = is_first(item) && run == item.sequence.kv_begin;
  uint channel_cursor = start_at(0), channel;
  if (pc.v > 0) [[dont_unroll]] do {
    channel = position_of(channel_cursor);
    channel_cursor += TILE_CHANNELS;
    float acc[TILE_CHANNELS][VECTORS];
    load_sums(area, channel, first_run, acc);
    uint cursor = start_at(run), block;
    if (run < run_end) [[dont_unroll]] do {
      block = position_of(cursor);
      cursor += kKvPageTokens;
      uint limit[VECTORS], all, last;
      block_limits(item, block, limit, all, last);
      uint64_t value = pc.kv + (key_row(item, block) * uint64_t(pc.kv_row_stride) +
                                uint64_t(item.head * (pc.nope + pc.v) + pc.nope + channel)) * 4ul;
      add_values(kKvFormatF32, area.weights + uint64_t(block - run) * uint64_t(kRowsBytes),
                 area.factors + uint64_t((block - run) / kKvPageTokens * kRowsBytes), value,
                 uint64_t(pc.kv_row_stride) * 4ul, all, last, limit, acc);
    } while (block + kKvPageTokens < run_end);
    store_sums(area.sums, channel, acc);
  } while (channel + TILE_CHANNELS < pc.v);
}

void attend(Item item, LaneArea area) {
  uint first_row = item.sequence.q_row + item.row_begin, last_row = item.sequence.q_row + item.last_row;
  pack_rows(pc.q + uint64_t(item.head) * uint64_t(pc.q_head_stride) * 4ul,
            uint64_t(pc.q_row_stride) * 4ul, first_row, last_row, pc.nope + pc.rope, area.query);
  uint begin = item.sequence.kv_begin, cursor = start_at(begin), run;
  float m[VECTORS], l[VECTORS];
  [[unroll]] for (uint v = 0; v < VECTORS; v++) {
    m[v] = minus_infinity();
    l[v] = 0.0;
  }
  if (!is_first(item)) {
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      m[v] = FloatIn(state_row(item, v)).v;
      l[v] = FloatIn(state_row(item, v) + 4ul).v;
    }
    pack_rows(pc.o + uint64_t(item.head) * uint64_t(pc.o_head_stride) * 4ul,
              uint64_t(pc.o_row_stride) * 4ul, first_row, last_row, pc.v, area.sums);
  } else if (begin >= item.end) {
    clear_sums(area, pc.v);
  }
  if (begin < item.end) [[dont_unroll]] do {
    run = position_of(cursor);
    cursor += RUN * kKvPageTokens;
    uint run_end = min(run + RUN * kKvPageTokens, item.end);
    weigh_run(item, area, run, run_end, m, l);
    add_run(item, area, run, run_end);
  } while (run + RUN * kKvPageTokens < item.end);

  bool last = (item.sequence.flags & kMlaPrefillFlagLast) != 0;
  if (!last) {
    [[unroll]] for (uint v = 0; v < VECTORS; v++) {
      if (item.row_begin + v * LANES + gl_SubgroupInvocationID <= item.last_row) {
        FloatOut(state_row(item, v)).v = m[v];
        FloatOut(state_row(item, v) + 4ul).v = l[v];
      }
    }
  }
  store_row(area.factors, l);
  unpack_rows(area, pc.v, item.last_row - item.row_begin + 1, pc.o,
              uint64_t(first_row) * uint64_t(pc.o_row_stride) +
                  uint64_t(item.head) * uint64_t(pc.o_head_stride),
              pc.o_row_stride, last, false);
}

void main() {
  uint tiles = (pc.max_q_len + ROWS - 1) / ROWS, items = tiles * pc.heads * pc.sequence_count;
  uint worker = gl_WorkGroupID.x;
  uint64_t areas = (pc.scratch + 63ul) & ~63ul;
  LaneArea area = lane_area(areas, worker, pc.nope + pc.rope, pc.v);
  uint cursor = start_at(0), turn;
  if (worker < items) [[dont_unroll]] do {
    turn = position_of(cursor);
    cursor++;
    uint number = lane_item(turn, items, tiles);
    // The tiles of a head follow each other, the longest first.
    uint tile = tiles - 1 - number % tiles;
    Item item;
    item.sequence = mla_prefill_sequence(min(number / (tiles * pc.heads), pc.sequence_count - 1));
    item.head = number / tiles % pc.heads;
    item.row_begin = tile * ROWS;
    if (number < items && item.row_begin < item.sequence.q_len) {
      item.last_row = min(item.row_begin + ROWS, item.sequence.q_len) - 1;
      item.end = min(item.sequence.kv_begin + item.sequence.kv_rows,
                     item.sequence.q_begin + item.last_row + 1);
      attend(item, area);
    }
  } while (turn + 1 < lane_turns(items, tiles));
}
