#version 460
#extension GL_GOOGLE_include_directive : require
// fp8_grouped_gemm, cooperative-matrix paths: fp8_gemm_coopmat.comp over the tiles of the device-made
// list, each at most TILE_M rows of one expert; hence its bits.
#include "lib/coopmat.glsl"
#include "layout/fp8_grouped_gemm.h"
#include "layout/fp8_gemm_paths.h"
#include "lib/fp8_gemm_path_spec.glsl"
#include "lib/fp8_gemm_grouped.glsl"
#include "lib/fp8_gemm_coopmat.glsl"

void main() {
  MoeTile tile = path_tile();
  if (tile.row_begin >= tile.row_end) return;
  ExpertWeight weight = expert_weight(pc.experts, tile.expert);
  fp8_gemm_coopmat(pc.a, pc.a_scale, weight.b, weight.b_scale, gl_WorkGroupID.x * TILE_N, pc.n, pc.k,
                   pc.a_stride, pc.a_scale_stride, pc.b_stride, pc.b_scale_stride);
}
