#include "hadal/fp8_grouped_gemm.h"

#include <fmt/format.h>

#include "fp8_gemm_paths.h"
#include "grouped_gemm_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/fp8_grouped_gemm.h"
#include "vk/pipeline.h"

namespace hadal {

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
  const uint32_t expected = ceil_div(shape.rows, shape.experts ? shape.experts : 1);
  const PathChoice choice =
      choose_fp8_path(Fp8Kernel::kGrouped, expected, shape.scales, caps, policy);
  config.rejected = choice.rejected;
  if (choice.path != GemmPath::kPortable) {
    config.path = choice.path, config.gpu_tile = choice.tile;
    config.tile_m = choice.tile.tile_m, config.tile_n = choice.tile.tile_n;
    config.workgroup_size = choice.tile.workgroup_size;
  }
  return config;
}

Fp8GroupedGemm::Fp8GroupedGemm(const Device& device, const vk::Pipeline* pipeline,
                               Fp8GroupedGemmConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<Fp8GroupedGemm> Fp8GroupedGemm::create(Device& device, const Fp8GroupedGemmConfig& config) {
  if (config.path != GemmPath::kPortable) {
    HADAL_ASSIGN(const vk::Pipeline* tiled,
                 fp8_path_pipeline(device, Fp8Kernel::kGrouped, config.path, config.gpu_tile,
                                   config.d_type == ElementType::kBf16, config.use_fma,
                                   sizeof(layout::Fp8GroupedGemmPush)));
    return Fp8GroupedGemm(device, tiled, config);
  }
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      vk::Pipeline::get(
          device, "fp8_grouped_gemm", config.workgroup_size,
          {{layout::kSpecUseFma, config.use_fma},
           {layout::kFp8GroupedGemmSpecTileM, config.tile_m},
           {layout::kFp8GroupedGemmSpecTileN, config.tile_n},
           {layout::kFp8GroupedGemmSpecDBf16, config.d_type == ElementType::kBf16},
           {layout::kFp8GroupedGemmSpecAScaleE8m0, config.scales.a_type == ScaleType::kE8m0},
           {layout::kFp8GroupedGemmSpecBScaleE8m0, config.scales.b_type == ScaleType::kE8m0},
           {layout::kFp8GroupedGemmSpecBScaleShift, b_scale_shift(config.scales)}},
          sizeof(layout::Fp8GroupedGemmPush)));
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
