#include "hadal/fp8_gemm.h"

#include <fmt/format.h>

#include "fp8_gemm_paths.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/fp8_gemm.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr uint32_t kLargestTileM = 16;

}  // namespace

Fp8GemmShape Fp8GemmShape::packed(uint32_t m, uint32_t n, uint32_t k) {
  Fp8GemmShape shape;
  shape.m = m, shape.n = n, shape.k = k;
  shape.a_stride = shape.b_stride = round_up(k, 16);
  shape.a_scale_stride = shape.b_scale_stride = ceil_div(k, kFp8BlockElems);
  shape.d_stride = n;
  return shape;
}

std::string Fp8GemmConfig::to_string() const {
  std::string text = fmt::format(
      "fp8_gemm: portable, tile {}x{}, workgroup {}, d {}, {}", tile_m, tile_n * workgroup_size,
      workgroup_size, d_type == ElementType::kF32 ? "f32" : "bf16", use_fma ? "fma" : "mul+add");
  if (path != GemmPath::kPortable) {
    text = fmt::format("fp8_gemm: {}, {}, d {}", gemm_path_name(path), hadal::to_string(gpu_tile),
                       d_type == ElementType::kF32 ? "f32" : "bf16");
  }
  text.append(scale_form_text(scales));
  for (const GemmRejection& r : rejected) {
    if (!r.format.empty()) text.append("; not ").append(r.to_string());
  }
  return text;
}

Status fp8_gemm_check(const Fp8GemmShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "fp8_gemm: " + std::move(text));
  };
  const uint32_t k_blocks = ceil_div(s.k, kFp8BlockElems);
  constexpr uint32_t kMaxK = 1u << 24;  // keeps byte offsets inside a row far from 32 bits
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
  const uint64_t max_m = uint64_t{kLargestTileM} * caps.max_workgroup_count[1];
  if (s.m > max_m) return error(fmt::format("m must be at most {}, got {}", max_m, s.m));
  return {};
}

Fp8GemmConfig fp8_gemm_choose(const Fp8GemmShape& shape, const Caps& caps,
                              const GemmPolicy& policy) {
  Fp8GemmConfig config;
  config.d_type = shape.d_type;
  config.scales = shape.scales;
  config.use_fma = caps.use_fma;
  config.workgroup_size = column_workgroup_size(caps);
  // Tiles by measurement (fp8_gemm.md): rows amortise the decoding of b, columns that of a. A GPU
  // wants many workgroups at small m rather than wide ones.
  config.tile_m = shape.m <= 1 ? 1 : shape.m <= 4 ? 4 : shape.m <= 8 ? 8 : kLargestTileM;
  config.tile_n = config.tile_m <= 4 ? (caps.is_cpu ? 8 : 1) : 4;
  const PathChoice choice = choose_fp8_path(Fp8Kernel::kDense, shape.m, shape.scales, caps, policy);
  config.rejected = choice.rejected;
  if (choice.path != GemmPath::kPortable) {
    config.path = choice.path, config.gpu_tile = choice.tile;
    config.tile_m = choice.tile.tile_m, config.tile_n = choice.tile.tile_n;
    config.workgroup_size = choice.tile.workgroup_size;
  }
  return config;
}

Fp8Gemm::Fp8Gemm(const Device& device, const vk::Pipeline* pipeline, Fp8GemmConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<Fp8Gemm> Fp8Gemm::create(Device& device, const Fp8GemmConfig& config) {
  if (config.path != GemmPath::kPortable) {
    HADAL_ASSIGN(const vk::Pipeline* tiled,
                 fp8_path_pipeline(device, Fp8Kernel::kDense, config.path, config.gpu_tile,
                                   config.d_type == ElementType::kBf16, config.use_fma,
                                   sizeof(layout::Fp8GemmPush)));
    return Fp8Gemm(device, tiled, config);
  }
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      vk::Pipeline::get(device, "fp8_gemm", config.workgroup_size,
                        {{layout::kSpecUseFma, config.use_fma},
                         {layout::kFp8GemmSpecTileM, config.tile_m},
                         {layout::kFp8GemmSpecTileN, config.tile_n},
                         {layout::kFp8GemmSpecDBf16, config.d_type == ElementType::kBf16},
                         {layout::kFp8GemmSpecAScaleE8m0, config.scales.a_type == ScaleType::kE8m0},
                         {layout::kFp8GemmSpecBScaleE8m0, config.scales.b_type == ScaleType::kE8m0},
                         {layout::kFp8GemmSpecBScaleShift, b_scale_shift(config.scales)}},
                        sizeof(layout::Fp8GemmPush)));
  return Fp8Gemm(device, pipeline, config);
}

Status Fp8Gemm::record(Recorder& recorder, const Fp8GemmShape& shape,
                       const Fp8GemmArgs& args) const {
  HADAL_TRY(fp8_gemm_check(shape, device_->caps()));
  if (shape.d_type != config_.d_type) {
    return {Errc::kInvalidArgument, "fp8_gemm: d_type must be the configuration's"};
  }
  if (shape.scales != config_.scales) {
    return {Errc::kInvalidArgument, "fp8_gemm: scales must be the configuration's"};
  }
  if (args.a % 16 || args.b % 16) {
    return {
        Errc::kInvalidArgument,
        fmt::format("fp8_gemm: a and b must be 16-byte aligned, got {:#x}, {:#x}", args.a, args.b)};
  }
  if (shape.m == 0 || shape.n == 0) return {};
  if (shape.k == 0 && shape.accumulate) return {};

  layout::Fp8GemmPush push{};
  push.a = args.a, push.a_scale = args.a_scale;
  push.b = args.b, push.b_scale = args.b_scale;
  push.d = args.d;
  push.m = shape.m, push.n = shape.n, push.k = shape.k;
  push.a_stride = shape.a_stride, push.a_scale_stride = shape.a_scale_stride;
  push.b_stride = shape.b_stride, push.b_scale_stride = shape.b_scale_stride;
  push.d_stride = shape.d_stride;
  push.flags = shape.accumulate ? layout::kFp8GemmFlagAccumulate : 0;

  const uint32_t k_blocks = ceil_div(shape.k, kFp8BlockElems);
  const DeviceRange d{args.d,
                      strided_bytes(shape.m, shape.n, shape.d_stride, element_bytes(shape.d_type))};
  const DeviceRange reads[] = {
      {args.a, strided_bytes(shape.m, shape.k, shape.a_stride, 1)},
      {args.a_scale,
       strided_bytes(shape.m, k_blocks, shape.a_scale_stride, scale_bytes(shape.scales.a_type))},
      {args.b, strided_bytes(shape.n, shape.k, shape.b_stride, 1)},
      {args.b_scale, strided_bytes(ceil_div(shape.n, shape.scales.b_rows), k_blocks,
                                   shape.b_scale_stride, scale_bytes(shape.scales.b_type))},
      {args.d, shape.accumulate ? d.bytes : 0}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "fp8_gemm";
  dispatch.push = push_bytes(push);
  dispatch.groups = {ceil_div(shape.n, config_.group_columns()), ceil_div(shape.m, config_.tile_m),
                     1};
  dispatch.reads = reads;
  dispatch.writes = {&d, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
