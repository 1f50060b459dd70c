#version 460
#extension GL_GOOGLE_include_directive : require
// fp8_gemm, shared-memory path for GPUs: one workgroup = TILE_M rows x TILE_N columns of d. Right at any
// subgroup size. Sum order: the portable path's, so that both give the same bits.
#include "lib/prelude.glsl"
#include "layout/fp8_gemm.h"
#include "layout/fp8_gemm_paths.h"
#include "lib/fp8_gemm_path_spec.glsl"
#include "lib/fp8_gemm_dense.glsl"
#include "lib/fp8_gemm_shared.glsl"

void main() {
  fp8_gemm_shared(pc.a, pc.a_scale, pc.b, pc.b_scale, gl_WorkGroupID.x * TILE_N, pc.n, pc.k, pc.a_stride,
                  pc.a_scale_stride, pc.b_stride, pc.b_scale_stride);
}
