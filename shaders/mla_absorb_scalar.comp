#version 460
#extension GL_GOOGLE_include_directive : require
// mla_absorb for CPU drivers that keep uniform values in scalar registers: the sums of mla_absorb.comp in
// the same order, hence its bits, but no load is a gather (scalar_loads.glsl).
// One workgroup, which is one subgroup, = TILE_M tokens (x) of one head (z) x a stretch of its outputs (y).
// Query: a vector is a word of 4 bytes of w per invocation, neighbouring columns of a row; a workgroup
// owns TILE_N vectors of every row. Value: a vector is a row of w per invocation; a workgroup owns TILE_N
// of them, and reads 8 bytes of each at a time.
#include "lib/prelude.glsl"
#include "layout/mla_absorb.h"

layout(constant_id = kMlaAbsorbSpecTileM) const uint TILE_M = 4;
layout(constant_id = kMlaAbsorbSpecTileN) const uint TILE_N = 1;
layout(constant_id = kMlaAbsorbSpecValue) const uint VALUE = 0;
layout(constant_id = kMlaAbsorbSpecWBf16) const uint W_BF16 = 0;

layout(push_constant, scalar) uniform Push { MlaAbsorbPush pc; };

#include "lib/mla_absorb.glsl"
#include "lib/scalar_loads.glsl"

const uint kWordColumns = 4 / kWBytes;  // of a query's vector, per invocation
const uint kTurnRows = kMlaAbsorbTurnRows;
const uint kTurn = kMlaAbsorbTurnColumns;

// A counter that stays a scalar: it differs between invocations on purpose, and the first one's is the
// position (why: lib/fp8_gemm_scalar_tile.glsl).
uint start_at(uint position) { return position + 2 * gl_SubgroupInvocationID; }
uint position_of(uint counter) { return subgroupBroadcast(counter, 0); }

// A word's weights; e4m3 come times 2^-8.
vec4 decode_word(uint word) {
  if (W_BF16 != 0) return bf16x4(word, 0);
  return e4m3x4_times_2_m8(word);
}

// t += in[p] * w[p, ...] of one row.
void query_row(uint64_t columns, uint64_t stride, uint64_t source[TILE_M], uint64_t p,
               inout float t[TILE_M][TILE_N][kWordColumns]) {
  vec4 w[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    w[j] = decode_word(load_words(columns + p * stride + uint64_t(j * gl_WorkGroupSize.x * 4)));
  }
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    float x = FloatIn(source[i] + p * uint64_t(4)).v;
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      [[unroll]] for (uint q = 0; q < kWordColumns; q++) t[i][j][q] = mac(x, w[j][q], t[i][j][q]);
    }
  }
}

void query(uint head, uint t0, uint64_t source[TILE_M]) {
  uint row0 = head * (pc.nope + pc.v);
  uint64_t stride = uint64_t(pc.w_stride) * kWBytes;
  // The last stretch moves back to end where the words of a row do; what it shares with its neighbour is
  // stored once.
  const uint width = gl_WorkGroupSize.x * kWordColumns * TILE_N;
  uint wanted = gl_WorkGroupID.y * width;
  uint first = min(wanted, ((pc.rank + 3) & ~3u) - width);
  uint64_t columns = w_row(row0) + first * kWBytes;
  uint lane = first + gl_SubgroupInvocationID * kWordColumns;
  float acc[TILE_M][TILE_N][kWordColumns];
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      [[unroll]] for (uint q = 0; q < kWordColumns; q++) acc[i][j][q] = 0.0;
    }
  }
  uint segment = start_at(0), end;
  do {
    uint begin = min(position_of(segment), pc.nope - 1);
    end = min(begin + kFp8Block - (row0 + begin) % kFp8Block, pc.nope);
    segment = start_at(end);
    float t[TILE_M][TILE_N][kWordColumns];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) {
        [[unroll]] for (uint q = 0; q < kWordColumns; q++) t[i][j][q] = 0.0;
      }
    }
    uint full = begin + (end - begin) / kTurnRows * kTurnRows;
    // The minima keep addresses inside the matrix where a driver runs a branch without an invocation.
    if (full > begin) {
      uint counter = start_at(begin), p;
      [[dont_unroll]] do {
        p = min(position_of(counter), full - kTurnRows);
        counter += kTurnRows;
        [[unroll]] for (uint u = 0; u < kTurnRows; u++) {
          query_row(columns, stride, source, uint64_t(p) + uint64_t(u), t);
        }
      } while (p + kTurnRows < full);
    }
    if (full < end) {
      uint counter = start_at(full), p;
      [[dont_unroll]] do {
        p = min(position_of(counter), pc.nope - 1);
        counter++;
        query_row(columns, stride, source, uint64_t(p), t);
      } while (p + 1 < end);
    }
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      uint l = lane + j * gl_WorkGroupSize.x * kWordColumns;
      float scale = segment_scale(row0 + begin, l);
      [[unroll]] for (uint i = 0; i < TILE_M; i++) {
        [[unroll]] for (uint q = 0; q < kWordColumns; q++) {
          acc[i][j][q] = fold(acc[i][j][q], t[i][j][q], scale);
        }
      }
    }
  } while (end < pc.nope);
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      [[unroll]] for (uint q = 0; q < kWordColumns; q++) {
        uint l = lane + j * gl_WorkGroupSize.x * kWordColumns + q;
        if (t0 + i < pc.tokens && l >= wanted && l < pc.rank) store(t0 + i, head, l, acc[i][j][q]);
      }
    }
  }
}

// t += the products of kTurn columns at l, of which `valid` count: for the others the first one is read
// again, and both operands are zero (padding may hold NaN).
void value_turn(uint64_t rows[TILE_N], uint64_t stride, uint64_t source[TILE_M], uint64_t l,
                uint valid, inout float t[TILE_M][TILE_N]) {
  float w[kTurn][TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    [[unroll]] for (uint c = 0; c < kTurn; c += 8 / kWBytes) {
      uint64_t at = l + uint64_t(c < valid ? c : 0);
      uint64_t words = load_b_words(rows[j] + at * uint64_t(kWBytes), stride);
      vec4 lo = W_BF16 != 0 ? bf16x4(uint(words), uint(words >> 32)) : decode_word(uint(words));
      [[unroll]] for (uint q = 0; q < 4; q++) w[c + q][j] = c + q < valid ? lo[q] : 0.0;
      if (W_BF16 == 0) {
        vec4 hi = decode_word(uint(words >> 32));
        [[unroll]] for (uint q = 4; q < 8; q++) w[(c + q) % kTurn][j] = c + q < valid ? hi[q - 4] : 0.0;
      }
    }
  }
  [[unroll]] for (uint c = 0; c < kTurn; c++) {
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      float x = FloatIn(source[i] + (l + uint64_t(c < valid ? c : 0)) * uint64_t(4)).v;
      if (c >= valid) x = 0.0;
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = mac(x, w[c][j], t[i][j]);
    }
  }
}

void value(uint head, uint t0, uint64_t source[TILE_M]) {
  uint wanted = gl_WorkGroupID.y * (gl_WorkGroupSize.x * TILE_N);
  uint first = tile_first_column(wanted, pc.v);
  uint row0 = head * (pc.nope + pc.v) + pc.nope + first;
  uint64_t stride = uint64_t(pc.w_stride) * kWBytes;
  uint64_t rows[TILE_N];
  float acc[TILE_M][TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    rows[j] = w_row(row0 + j * gl_WorkGroupSize.x);
    [[unroll]] for (uint i = 0; i < TILE_M; i++) acc[i][j] = 0.0;
  }
  uint segment = start_at(0), end;
  do {
    uint begin = min(position_of(segment), pc.rank - 1);
    end = min(begin + kFp8Block, pc.rank);
    segment = start_at(end);
    float t[TILE_M][TILE_N];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = 0.0;
    }
    uint full = begin + (end - begin) / kTurn * kTurn;
    if (full > begin) {
      uint counter = start_at(begin), l;
      [[dont_unroll]] do {
        l = min(position_of(counter), full - kTurn);
        counter += kTurn;
        value_turn(rows, stride, source, uint64_t(l), kTurn, t);
      } while (l + kTurn < full);
    }
    if (full < end) {
      value_turn(rows, stride, source, uint64_t(min(full, (pc.rank - 1) & ~(kTurn - 1))), end - full, t);
    }
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      float scale = segment_scale(row0 + j * gl_WorkGroupSize.x + gl_SubgroupInvocationID, begin);
      [[unroll]] for (uint i = 0; i < TILE_M; i++) acc[i][j] = fold(acc[i][j], t[i][j], scale);
    }
  } while (end < pc.rank);
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint column = first + j * gl_WorkGroupSize.x + gl_SubgroupInvocationID;
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      if (t0 + i < pc.tokens && column >= wanted) store(t0 + i, head, column, acc[i][j]);
    }
  }
}

void main() {
  // Tiles of the same weights follow each other: those stay in the core's cache.
  uint t0 = gl_WorkGroupID.x * TILE_M, head = gl_WorkGroupID.z;
  uint64_t source[TILE_M];
  token_rows(t0, head, source);
  if (VALUE != 0) {
    value(head, t0, source);
  } else {
    query(head, t0, source);
  }
}
