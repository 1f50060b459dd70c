// What fp8_gemm.cpp and fp8_grouped_gemm.cpp share beside their paths (fp8_gemm_paths.h). `kernel`
// is a kernel's name, for messages. Private.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "fp8_gemm_paths.h"
#include "kernel_util.h"

namespace hadal {

// The rules for k, the strides and the scales of an Fp8GemmShape or Fp8GroupedGemmShape.
template <class Shape>
[[nodiscard]] Status check_fp8_operands(std::string_view kernel, const Shape& s) {
  const auto error = [&](const std::string& text) {
    return Status(Errc::kInvalidArgument, fmt::format("{}: {}", kernel, text));
  };
  const uint32_t k_blocks = ceil_div(s.k, kFp8BlockElems);
  if (s.k > kMaxGemmK) return error(fmt::format("k must be at most {}, got {}", kMaxGemmK, s.k));
  if (s.a_stride < s.k) {
    return error(fmt::format("a_stride must be at least k, got {} < {}", s.a_stride, s.k));
  }
  if (s.a_stride % 16) {
    return error(fmt::format("a_stride must be a multiple of 16 bytes, got {}", s.a_stride));
  }
  if (s.b_stride < s.k) {
    return error(fmt::format("b_stride must be at least k, got {} < {}", s.b_stride, s.k));
  }
  if (s.b_stride % 16) {
    return error(fmt::format("b_stride must be a multiple of 16 bytes, got {}", s.b_stride));
  }
  if (s.a_scale_stride < k_blocks) {
    return error(fmt::format("a_scale_stride must be at least ceil(k/128), got {} < {}",
                             s.a_scale_stride, k_blocks));
  }
  if (s.b_scale_stride < k_blocks) {
    return error(fmt::format("b_scale_stride must be at least ceil(k/128), got {} < {}",
                             s.b_scale_stride, k_blocks));
  }
  if (s.scales.b_rows != kFp8BlockElems && s.scales.b_rows != 1) {
    return error(fmt::format("scales.b_rows must be 128 or 1, got {}", s.scales.b_rows));
  }
  if (s.d_stride < s.n) {
    return error(fmt::format("d_stride must be at least n, got {} < {}", s.d_stride, s.n));
  }
  return {};
}

// The line of an Fp8GemmConfig or Fp8GroupedGemmConfig.
template <class Config>
[[nodiscard]] std::string fp8_config_text(std::string_view kernel, const Config& c) {
  const std::string_view d = c.d_type == ElementType::kF32 ? "f32" : "bf16";
  std::string text = c.path == GemmPath::kPortable
                         ? fmt::format("{}: portable, tile {}x{}, workgroup {}, d {}, {}", kernel,
                                       c.tile_m, c.tile_n * c.workgroup_size, c.workgroup_size, d,
                                       c.use_fma ? "fma" : "mul+add")
                         : fmt::format("{}: {}, {}, d {}", kernel, gemm_path_name(c.path),
                                       hadal::to_string(c.gpu_tile), d);
  text.append(scale_form_text(c.scales));
  for (const GemmRejection& r : c.rejected) {
    if (!r.format.empty()) text.append("; not ").append(r.to_string());
  }
  return text;
}

// `first`, what choose() takes without a table, then every other configuration that the policy
// allows and `usable(config)` accepts. `rows` as for choose_fp8_path.
template <class Config, class Usable>
[[nodiscard]] std::vector<Config> fp8_candidates(Fp8Kernel kernel, const Config& first,
                                                 uint32_t rows, uint32_t n, const Caps& caps,
                                                 const GemmPolicy& policy, Usable usable) {
  std::vector<Config> configs = {first};
  const auto add = [&](const Config& config) {
    const bool again =
        config.path == first.path && config.tile_m == first.tile_m && config.tile_n == first.tile_n;
    if (!again && usable(config)) configs.push_back(config);
  };
  for (GemmPath path : kTiledPaths) {
    if (!may_replace(path, first.path, first.scales, caps, policy)) continue;
    GemmRejection why;
    for (const GemmTile& tile : fp8_path_tiles(kernel, path, rows, n, caps, why)) {
      Config config = first;
      set_tile(path, tile, config);
      add(config);
    }
  }
  if (!may_replace(GemmPath::kPortable, first.path, first.scales, caps, policy)) return configs;
  for (const TunedChoice& tile : portable_tiles(rows)) {
    Config config = first;
    config.path = GemmPath::kPortable, config.gpu_tile = {};
    config.tile_m = tile.tile_m, config.tile_n = tile.tile_n;
    config.workgroup_size = column_workgroup_size(caps);
    add(config);
  }
  return configs;
}

// The pipeline of a configuration and what its path needs. Errors: those of fp8_path_pipeline.
template <class Config>
[[nodiscard]] Result<Fp8Pipeline> fp8_config_pipeline(Device& device, Fp8Kernel kernel,
                                                      const Config& c, uint32_t push_bytes) {
  GemmTile tile = c.gpu_tile;
  if (c.path == GemmPath::kPortable) {
    tile.tile_m = c.tile_m, tile.part_n = c.tile_n, tile.workgroup_size = c.workgroup_size;
  }
  return fp8_path_pipeline(device, kernel, c.path, tile, c.scales, c.d_type == ElementType::kBf16,
                           c.use_fma, push_bytes);
}

}  // namespace hadal
