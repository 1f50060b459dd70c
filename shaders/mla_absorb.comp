#version 460
#extension GL_GOOGLE_include_directive : require
// mla_absorb, portable path: per head h, from kv_b_proj's own rows (nope rows W_UK, then v rows W_UV)
//   query direction: out[t,h,l] = sum over p of in[t,h,p] * W[h*(nope+v) + p, l]
//   value direction: out[t,h,j] = sum over l of in[t,h,l] * W[h*(nope+v) + nope + j, l]
// One workgroup = TILE_M tokens of one head (z) x a stretch of its outputs. Query: invocations lie along l,
// each owning TILE_N groups of 8 columns a workgroup apart, so that rows of w are read in long sweeps
// (short pieces of many rows cost a CPU four times the time). Value: invocations lie along j as in
// fp8_gemm, each owning TILE_N rows of w a workgroup apart. The tokens' values are uniform. No shared
// memory, no barrier, no subgroup operation: right at any subgroup size.
// Sum order: ascending in segments, which end where a 128x128 scale block does (absolute rows of w for p,
// l for l); a segment's sum is scaled once and added to the result. No tile changes it.
#include "lib/prelude.glsl"
#include "layout/mla_absorb.h"

layout(constant_id = kMlaAbsorbSpecTileM) const uint TILE_M = 4;
layout(constant_id = kMlaAbsorbSpecTileN) const uint TILE_N = 1;
layout(constant_id = kMlaAbsorbSpecValue) const uint VALUE = 0;
layout(constant_id = kMlaAbsorbSpecWBf16) const uint W_BF16 = 0;

layout(push_constant, scalar) uniform Push { MlaAbsorbPush pc; };

#include "lib/mla_absorb.glsl"

// Eight weights at a column that is a multiple of 8; e4m3 comes times 2^-8.
void load_w8(uint64_t address, out vec4 lo, out vec4 hi) {
  if (W_BF16 != 0) {
    load_bf16x8(address, lo, hi);
  } else {
    uint64_t w = U64In(address).v;
    lo = e4m3x4_times_2_m8(uint(w));
    hi = e4m3x4_times_2_m8(uint(w >> 32));
  }
}

void query_step(uint64_t columns[TILE_N], uint64_t offset, uint64_t source[TILE_M], uint p,
                inout float t[TILE_M][TILE_N][8]) {
  vec4 lo[TILE_N], hi[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) load_w8(columns[j] + offset, lo[j], hi[j]);
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    // Inside the row also on the turn that a CPU driver runs without an invocation.
    float x = FloatIn(source[i] + min(p, max(pc.nope, 1) - 1) * 4).v;
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      [[unroll]] for (uint q = 0; q < 4; q++) t[i][j][q] = mac(x, lo[j][q], t[i][j][q]);
      [[unroll]] for (uint q = 0; q < 4; q++) t[i][j][q + 4] = mac(x, hi[j][q], t[i][j][q + 4]);
    }
  }
}

void query(uint head, uint t0, uint64_t source[TILE_M]) {
  uint row0 = head * (pc.nope + pc.v);
  uint64_t stride = uint64_t(pc.w_stride) * kWBytes;
  uint l0[TILE_N], l[TILE_N];
  uint64_t columns[TILE_N];
  float acc[TILE_M][TILE_N][8];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint lane = (gl_WorkGroupID.x * TILE_N + j) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    l0[j] = lane * kMlaAbsorbColumns;
    l[j] = min(l0[j], (pc.rank - 1) & ~7u);  // past the edge: the last columns again, not stored
    columns[j] = w_row(row0) + l[j] * kWBytes;
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint q = 0; q < 8; q++) acc[i][j][q] = 0.0;
    }
  }
  uint end = 0;
  for (uint begin = 0; begin < pc.nope; begin = end) {
    end = min(begin + kFp8Block - (row0 + begin) % kFp8Block, pc.nope);
    float t[TILE_M][TILE_N][8];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) {
        [[unroll]] for (uint q = 0; q < 8; q++) t[i][j][q] = 0.0;
      }
    }
    // Four rows per round: a CPU driver pays for every accumulator at the loop's back edge.
    uint full = begin + ((end - begin) & ~3u);
    [[dont_unroll]] for (uint p = begin; p < full; p += 4) {
      [[unroll]] for (uint u = 0; u < 4; u++) {
        query_step(columns, (p + u) * stride, source, p + u, t);
      }
    }
    [[dont_unroll]] for (uint p = full; p < end; p++) {
      query_step(columns, p * stride, source, p, t);
    }
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      float scale = segment_scale(row0 + begin, l[j]);
      [[unroll]] for (uint i = 0; i < TILE_M; i++) {
        [[unroll]] for (uint q = 0; q < 8; q++) acc[i][j][q] = fold(acc[i][j][q], t[i][j][q], scale);
      }
    }
  }
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      [[unroll]] for (uint q = 0; q < 8; q++) {
        if (t0 + i < pc.tokens && l0[j] + q < pc.rank) store(t0 + i, head, l0[j] + q, acc[i][j][q]);
      }
    }
  }
}

void value_step(uint64_t rows[TILE_N], uint64_t source[TILE_M], uint l, uint valid,
                inout float t[TILE_M][TILE_N]) {
  vec4 w_lo[TILE_N], w_hi[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    load_w8(rows[j] + l * kWBytes, w_lo[j], w_hi[j]);
    if (valid < 8) keep8(valid, w_lo[j], w_hi[j]);
  }
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint q = 0; q < 8; q++) {
      float x = 0.0;
      if (q < valid) x = FloatIn(source[i] + min(l + q, pc.rank - 1) * 4).v;
      [[unroll]] for (uint j = 0; j < TILE_N; j++) {
        t[i][j] = mac(x, q < 4 ? w_lo[j][q & 3] : w_hi[j][q & 3], t[i][j]);
      }
    }
  }
}

void value(uint head, uint t0, uint64_t source[TILE_M]) {
  uint j0 = gl_WorkGroupID.x * (gl_WorkGroupSize.x * TILE_N) + gl_LocalInvocationID.x;
  uint64_t rows[TILE_N];
  uint row[TILE_N];
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    row[j] = head * (pc.nope + pc.v) + pc.nope + min(j0 + j * gl_WorkGroupSize.x, pc.v - 1);
    rows[j] = w_row(row[j]);
  }
  float acc[TILE_M][TILE_N];
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    [[unroll]] for (uint j = 0; j < TILE_N; j++) acc[i][j] = 0.0;
  }
  for (uint begin = 0; begin < pc.rank; begin += kFp8Block) {
    float t[TILE_M][TILE_N];
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      [[unroll]] for (uint j = 0; j < TILE_N; j++) t[i][j] = 0.0;
    }
    uint end = min(begin + kFp8Block, pc.rank);
    uint full = begin + ((end - begin) & ~7u);
    [[dont_unroll]] for (uint l = begin; l < full; l += 8) value_step(rows, source, l, 8, t);
    if (full < end) value_step(rows, source, full, end - full, t);
    [[unroll]] for (uint j = 0; j < TILE_N; j++) {
      float scale = segment_scale(row[j], begin);
      [[unroll]] for (uint i = 0; i < TILE_M; i++) acc[i][j] = fold(acc[i][j], t[i][j], scale);
    }
  }
  [[unroll]] for (uint j = 0; j < TILE_N; j++) {
    uint column = j0 + j * gl_WorkGroupSize.x;
    [[unroll]] for (uint i = 0; i < TILE_M; i++) {
      if (t0 + i < pc.tokens && column < pc.v) store(t0 + i, head, column, acc[i][j]);
    }
  }
}

void main() {
  uint t0 = gl_WorkGroupID.y * TILE_M, head = gl_WorkGroupID.z;
  uint64_t source[TILE_M];
  token_rows(t0, head, source);
  if (VALUE != 0) {
    value(head, t0, source);
  } else {
    query(head, t0, source);
  }
}
