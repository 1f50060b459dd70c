// What the paths of mla_absorb share: rows and scales of w, how a segment's sum joins the result, and
// stores. Needs W_BF16 and `pc` before the include.

#include "fp8.glsl"
#include "bf16.glsl"

const uint kWBytes = W_BF16 != 0 ? 2 : 1;

uint64_t w_row(uint row) { return pc.w + uint64_t(row) * pc.w_stride * kWBytes; }

// What a segment's sum is multiplied by: its block's scale and the decoder's 2^8, which is exact.
float segment_scale(uint row, uint l) {
  if (W_BF16 != 0) return 1.0;
  uint64_t index = uint64_t(row / kFp8Block) * pc.w_scale_stride + l / kFp8Block;
  return FloatIn(pc.w_scale + index * 4).v * 256.0;
}

float fold(float acc, float segment, float scale) {
  if (W_BF16 != 0) {
    precise float sum = acc + segment;
    return sum;
  }
  return mac(segment, scale, acc);
}

void store(uint token, uint head, uint column, float value) {
  uint64_t index = uint64_t(token) * pc.out_token_stride + uint64_t(head) * pc.out_head_stride + column;
  FloatOut(pc.result + index * 4).v = value;
}

// Where the tile's tokens begin. Those past the last one repeat it and are not stored.
void token_rows(uint t0, uint head, out uint64_t source[TILE_M]) {
  [[unroll]] for (uint i = 0; i < TILE_M; i++) {
    uint token = min(t0 + i, pc.tokens - 1);
    source[i] = pc.source +
                (uint64_t(token) * pc.in_token_stride + uint64_t(head) * pc.in_head_stride) * 4;
  }
}
