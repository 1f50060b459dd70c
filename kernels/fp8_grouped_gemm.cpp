#include "hadal/fp8_grouped_gemm.h"

#include <fmt/format.h>

#include "fp8_gemm_paths.h"
#include "grouped_gemm_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/fp8_grouped_gemm.h"
#include "vk/e4m3_table.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

// What the tiles of the GPU paths are chosen by.
uint32_t rows_of_an_expert(const Fp8GroupedGemmShape& s) {
  const bool known = s.expected_rows > 0 && s.expected_rows < s.rows;
  return ceil_div(known ? s.expected_rows : s.rows, s.experts ? s.experts : 1);
}

}  // namespace

Fp8GroupedGemmShape Fp8GroupedGemmShape::packed(uint32_t rows, uint32_t experts, uint32_t n,
                                                uint32_t k) {
  Fp8GroupedGemmShape shape;
  shape.rows = shape.tokens = rows;
  shape.experts = experts, shape.n = n, shape.k = k;
  shape.a_stride = shape.b_stride = round_up(k, 16);
  shape.a_scale_stride = shape.b_scale_stride = ceil_div(k, kFp8BlockElems);
  shape.d_stride = n;
  return shape;
}

std::string Fp8GroupedGemmConfig::to_string() const {
  std::string text =
      fmt::format("fp8_grouped_gemm: portable, tile {}x{}, workgroup {}, d {}, {}", tile_m,
                  tile_n * workgroup_size, workgroup_size,
                  d_type == ElementType::kF32 ? "f32" : "bf16", use_fma ? "fma" : "mul+add");
  if (path != GemmPath::kPortable) {
    text = fmt::format("fp8_grouped_gemm: {}, {}, d {}", gemm_path_name(path),
                       hadal::to_string(gpu_tile), d_type == ElementType::kF32 ? "f32" : "bf16");
  }
  text.append(scale_form_text(scales));
  for (const GemmRejection& r : rejected) {
    if (!r.format.empty()) text.append("; not ").append(r.to_string());
  }
  return text;
}

Status fp8_grouped_gemm_check(const Fp8GroupedGemmShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "fp8_grouped_gemm: " + std::move(text));
  };
  const uint32_t k_blocks = ceil_div(s.k, kFp8BlockElems);
  constexpr uint32_t kMaxK = 1u << 24;  // keeps byte offsets inside a row far from 32 bits
  if (s.rows > 0 && s.experts == 0) {
    return error(fmt::format("experts must be at least 1 for {} rows, got 0", s.rows));
  }
  if (s.rows > 0 && s.tokens == 0) {
    return error(fmt::format("tokens must be at least 1 for {} rows, got 0", s.rows));
  }
  if (s.k > kMaxK) return error(fmt::format("k must be at most {}, got {}", kMaxK, s.k));
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
  const uint32_t tiles = grouped_gemm_max_tiles(s.rows, s.experts, kGroupedGemmLargestTileM);
  if (tiles > caps.max_workgroup_count[1]) {
    return error(fmt::format("rows and experts must make at most {} tiles of {} rows, got {}",
                             caps.max_workgroup_count[1], kGroupedGemmLargestTileM, tiles));
  }
  return {};
}

Fp8GroupedGemmConfig fp8_grouped_gemm_choose(const Fp8GroupedGemmShape& shape, const Caps& caps,
                                             const GemmPolicy& policy) {
  Fp8GroupedGemmConfig config;
  config.d_type = shape.d_type;
  config.scales = shape.scales;
  config.use_fma = caps.use_fma;
  config.workgroup_size = column_workgroup_size(caps);
  config.tile_m = grouped_gemm_tile_m(shape.rows, shape.expected_rows, shape.experts,
                                      caps.max_workgroup_count[1]);
  // By measurement (fp8_grouped_gemm.md): columns amortise the decoding of a. A GPU wants many
  // workgroups at few rows rather than wide ones.
  config.tile_n = config.tile_m > 8 ? 4 : caps.is_cpu ? 8 : config.tile_m > 4 ? 4 : 1;
  const uint32_t expected = rows_of_an_expert(shape);
  PathChoice choice =
      choose_fp8_path(Fp8Kernel::kGrouped, expected, shape.n, shape.scales, caps, policy);
  TunedChoice tuned;
  const auto listable = [&](uint32_t tile_m) {
    return grouped_gemm_max_tiles(shape.rows, shape.experts, tile_m) <= caps.max_workgroup_count[1];
  };
  // Taller scalar tiles where the list may be longer than the device has workgroups; the tallest is
  // never too short, by check().
  for (uint32_t shorter = 0; choice.path == GemmPath::kScalar && choice.tile.tile_m > shorter &&
                             !listable(choice.tile.tile_m);) {
    shorter = choice.tile.tile_m;
    choice = choose_fp8_path(Fp8Kernel::kGrouped, choice.tile.tile_m + 1, shape.n, shape.scales,
                             caps, policy);
  }
  const PathChoice untuned = choice;
  if (apply_tuning(Fp8Kernel::kGrouped, expected, shape.n, shape.k, shape.scales, caps, policy,
                   choice, tuned)) {
    if (listable(tuned.tile_m)) {
      config.tile_m = tuned.tile_m, config.tile_n = tuned.tile_n;
    } else {
      choice = untuned;  // more tiles than workgroups
    }
  }
  config.rejected = choice.rejected;
  if (choice.path != GemmPath::kPortable) set_tile(choice.path, choice.tile, config);
  return config;
}

std::vector<Fp8GroupedGemmConfig> fp8_grouped_gemm_candidates(const Fp8GroupedGemmShape& shape,
                                                              const Caps& caps,
                                                              const GemmPolicy& policy) {
  GemmPolicy untuned = policy;
  untuned.tuning = nullptr;
  std::vector<Fp8GroupedGemmConfig> configs = {fp8_grouped_gemm_choose(shape, caps, untuned)};
  const Fp8GroupedGemmConfig first = configs.front();
  const uint32_t expected = rows_of_an_expert(shape);
  const auto add = [&](const Fp8GroupedGemmConfig& config) {
    const bool again =
        config.path == first.path && config.tile_m == first.tile_m && config.tile_n == first.tile_n;
    const bool listable = grouped_gemm_max_tiles(shape.rows, shape.experts, config.tile_m) <=
                          caps.max_workgroup_count[1];
    if (!again && listable) configs.push_back(config);
  };
  for (GemmPath path : kTiledPaths) {
    if (!may_replace(path, first.path, shape.scales, caps, untuned)) continue;
    GemmRejection why;
    for (const GemmTile& tile :
         fp8_path_tiles(Fp8Kernel::kGrouped, path, expected, shape.n, caps, why)) {
      Fp8GroupedGemmConfig config = first;
      set_tile(path, tile, config);
      add(config);
    }
  }
  if (!may_replace(GemmPath::kPortable, first.path, shape.scales, caps, untuned)) return configs;
  for (const TunedChoice& tile : portable_tiles(expected)) {
    Fp8GroupedGemmConfig config = first;
    config.path = GemmPath::kPortable, config.gpu_tile = {};
    config.tile_m = tile.tile_m, config.tile_n = tile.tile_n;
    config.workgroup_size = column_workgroup_size(caps);
    add(config);
  }
  return configs;
}

Fp8GroupedGemm::Fp8GroupedGemm(const Device& device, const vk::Pipeline* pipeline,
                               Fp8GroupedGemmConfig config, DeviceAddress e4m3_table)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)), e4m3_table_(e4m3_table) {}

Result<Fp8GroupedGemm> Fp8GroupedGemm::create(Device& device, const Fp8GroupedGemmConfig& config) {
  using namespace layout;
  const bool d_bf16 = config.d_type == ElementType::kBf16;
  if (config.path != GemmPath::kPortable) {
    DeviceAddress table = 0;
    if (config.path == GemmPath::kScalar) {
      HADAL_ASSIGN(table, vk::e4m3_table(device));
    }
    HADAL_ASSIGN(
        const vk::Pipeline* tiled,
        fp8_path_pipeline(device, Fp8Kernel::kGrouped, config.path, config.gpu_tile, config.scales,
                          d_bf16, config.use_fma, sizeof(Fp8GroupedGemmPush)));
    return Fp8GroupedGemm(device, tiled, config, table);
  }
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      vk::Pipeline::get(device, "fp8_grouped_gemm", config.workgroup_size,
                        {{kSpecUseFma, config.use_fma},
                         {kFp8GroupedGemmSpecTileM, config.tile_m},
                         {kFp8GroupedGemmSpecTileN, config.tile_n},
                         {kFp8GroupedGemmSpecDBf16, d_bf16},
                         {kFp8GroupedGemmSpecAScaleE8m0, config.scales.a_type == ScaleType::kE8m0},
                         {kFp8GroupedGemmSpecBScaleE8m0, config.scales.b_type == ScaleType::kE8m0},
                         {kFp8GroupedGemmSpecBScaleShift, b_scale_shift(config.scales)}},
                        sizeof(Fp8GroupedGemmPush)));
  return Fp8GroupedGemm(device, pipeline, config);
}

Status Fp8GroupedGemm::record(Recorder& recorder, const Fp8GroupedGemmShape& shape,
                              const Fp8GroupedGemmArgs& args) const {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "fp8_grouped_gemm: " + std::move(text));
  };
  HADAL_TRY(fp8_grouped_gemm_check(shape, device_->caps()));
  if (shape.d_type != config_.d_type) return error("d_type must be the configuration's");
  if (shape.scales != config_.scales) return error("scales must be the configuration's");
  if (shape.rows == 0 || shape.n == 0) return {};
  if (args.a % 16) return error(fmt::format("a must be 16-byte aligned, got {:#x}", args.a));
  if (args.a_rows == 0 && shape.tokens != shape.rows) {
    return error(fmt::format("tokens must equal rows without a_rows, got {} and {}", shape.tokens,
                             shape.rows));
  }
  HADAL_TRY(grouped_gemm_check_lists("fp8_grouped_gemm", args.a_rows, args.expert_table, args.tiles,
                                     args.indirect_buffer, args.indirect_offset));
  const uint32_t max_tiles = grouped_gemm_max_tiles(shape.rows, shape.experts, config_.tile_m);
  if (max_tiles > device_->caps().max_workgroup_count[1]) {
    return error(fmt::format("tiles of {} rows may be at most {}, got {}", config_.tile_m,
                             device_->caps().max_workgroup_count[1], max_tiles));
  }

  layout::Fp8GroupedGemmPush push{};
  push.a = args.a, push.a_scale = args.a_scale, push.a_rows = args.a_rows;
  push.experts = args.expert_table, push.tiles = args.tiles, push.d = args.d;
  push.n = shape.n, push.k = shape.k;
  push.a_stride = shape.a_stride, push.a_scale_stride = shape.a_scale_stride;
  push.b_stride = shape.b_stride, push.b_scale_stride = shape.b_scale_stride;
  push.d_stride = shape.d_stride;
  push.e4m3_table = e4m3_table_;

  const uint32_t k_blocks = ceil_div(shape.k, kFp8BlockElems);
  const DeviceRange reads[] = {
      {args.a, strided_bytes(shape.tokens, shape.k, shape.a_stride, 1)},
      {args.a_scale, strided_bytes(shape.tokens, k_blocks, shape.a_scale_stride,
                                   scale_bytes(shape.scales.a_type))},
      {args.a_rows, args.a_rows ? uint64_t{shape.rows} * 4 : 0},
      {args.expert_table, uint64_t{shape.experts} * sizeof(ExpertWeight)},
      {args.tiles, uint64_t{max_tiles} * sizeof(MoeTile)}};
  const DeviceRange d{
      args.d, strided_bytes(shape.rows, shape.n, shape.d_stride, element_bytes(shape.d_type))};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "fp8_grouped_gemm";
  dispatch.push = push_bytes(push);
  dispatch.indirect = {args.indirect_buffer->address() + args.indirect_offset, 12};
  dispatch.indirect_buffer = args.indirect_buffer;
  dispatch.reads = reads;
  dispatch.writes = {&d, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
