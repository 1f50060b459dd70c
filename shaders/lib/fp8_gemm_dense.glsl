// What every GPU path of fp8_gemm has in common: rows and d of a dense problem.
layout(push_constant, scalar) uniform Push { Fp8GemmPush pc; };

uint path_m0() { return gl_WorkGroupID.y * TILE_M; }
// Rows past the edge repeat the last one and are not stored.
uint path_a_row(uint i) { return min(path_m0() + i, pc.m - 1); }

void path_store(uint i, uint col, float value) {
  uint row = path_m0() + i;
  if (row >= pc.m) return;
  uint64_t index = uint64_t(row) * pc.d_stride + col;
  if (D_BF16 != 0) {
    U16Out d = U16Out(pc.d + index * 2);
    if ((pc.flags & kFp8GemmFlagAccumulate) != 0) value += bf16_decode(uint(d.v));
    d.v = uint16_t(bf16_encode(value));
  } else {
    FloatOut d = FloatOut(pc.d + index * 4);
    if ((pc.flags & kFp8GemmFlagAccumulate) != 0) value += d.v;
    d.v = value;
  }
}
