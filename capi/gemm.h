// What the GEMMs of the C ABI share. Private.
#pragma once

#include "hadal/gemm_path.h"
#include "hadal/types.h"
#include "plan.h"

namespace hadal::capi {

[[nodiscard]] inline GemmPolicy gemm_policy(hadal_gemm_flags flags) {
  GemmPolicy policy;
  policy.batch_invariant = !(flags & HADAL_GEMM_VARIANT_BITS);
  policy.coarse_sums = flags & HADAL_GEMM_COARSE_SUMS;
  return policy;
}

// The scales' form of an fp8_gemm or fp8_grouped_gemm desc.
template <class Desc>
[[nodiscard]] Result<Fp8ScaleForm> scale_form(std::string_view kernel, const Desc& d) {
  Fp8ScaleForm form;
  HADAL_ASSIGN(form.a_type, enumerator<ScaleType>(kernel, "a_scale_type", d.a_scale_type, 2));
  HADAL_ASSIGN(form.b_type, enumerator<ScaleType>(kernel, "b_scale_type", d.b_scale_type, 2));
  if (d.b_scale_rows != 0 && d.b_scale_rows != 1 && d.b_scale_rows != kFp8BlockElems) {
    return invalid(kernel, fmt::format("b_scale_rows must be 0, 1 or 128, got {}", d.b_scale_rows));
  }
  if (d.b_scale_rows) form.b_rows = d.b_scale_rows;
  return form;
}

// What the tile list of a grouped GEMM's plan needs to know.
template <class Shape, class Kernel, class Config>
void set_tiling(const Config& config, KernelPlan<Shape, Kernel>& plan) {
  plan.tile_m = config.tile_m;
  plan.groups_x = config.column_groups(plan.shape.n);
  plan.max_tiles = grouped_gemm_max_tiles(plan.shape.rows, plan.shape.experts, config.tile_m);
}

}  // namespace hadal::capi
