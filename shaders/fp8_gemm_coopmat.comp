#version 460
#extension GL_GOOGLE_include_directive : require
// fp8_gemm, cooperative-matrix paths: f16 decoded exactly from e4m3, or with HADAL_FLOAT8 the codes
// themselves, in f32 accumulators. One workgroup = TILE_M rows x TILE_N columns of d. Wants full
// subgroups of the size that the host chose. Sum order: blocks of 128 channels ascending; inside a
// block COOP_K at a time ascending, those in the matrix unit's own order; so bits do not depend on m,
// but differ from the portable path's.
#include "lib/coopmat.glsl"
#include "layout/fp8_gemm.h"
#include "layout/fp8_gemm_paths.h"
#include "lib/fp8_gemm_path_spec.glsl"
#include "lib/fp8_gemm_dense.glsl"
#include "lib/fp8_gemm_coopmat.glsl"

void main() {
  fp8_gemm_coopmat(pc.a, pc.a_scale, pc.b, pc.b_scale, gl_WorkGroupID.x * TILE_N, pc.n, pc.k, pc.a_stride,
                   pc.a_scale_stride, pc.b_stride, pc.b_scale_stride);
}
