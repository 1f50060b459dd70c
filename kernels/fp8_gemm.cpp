#include "hadal/fp8_gemm.h"

#include <fmt/format.h>

#include "fp8_gemm_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/fp8_gemm.h"

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
  return fp8_config_text("fp8_gemm", *this);
}

Status fp8_gemm_check(const Fp8GemmShape& s, const Caps& caps) {
  HADAL_TRY(check_fp8_operands("fp8_gemm", s));
  const uint64_t max_m = uint64_t{kLargestTileM} * caps.max_workgroup_count[1];
  if (s.m > max_m) {
    return {Errc::kInvalidArgument,
            fmt::format("fp8_gemm: m must be at most {}, got {}", max_m, s.m)};
  }
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
  PathChoice choice =
      choose_fp8_path(Fp8Kernel::kDense, shape.m, shape.n, shape.scales, caps, policy);
  TunedChoice tuned;
  if (apply_tuning(Fp8Kernel::kDense, shape.m, shape.n, shape.k, shape.scales, caps, policy, choice,
                   tuned)) {
    config.tile_m = tuned.tile_m, config.tile_n = tuned.tile_n;
  }
  config.rejected = choice.rejected;
  if (choice.path != GemmPath::kPortable) set_tile(choice.path, choice.tile, config);
  return config;
}

std::vector<Fp8GemmConfig> fp8_gemm_candidates(const Fp8GemmShape& shape, const Caps& caps,
                                               const GemmPolicy& policy) {
  GemmPolicy untuned = policy;
  untuned.tuning = nullptr;
  return fp8_candidates(Fp8Kernel::kDense, fp8_gemm_choose(shape, caps, untuned), shape.m, shape.n,
                        caps, untuned, [](const Fp8GemmConfig&) { return true; });
}

Fp8Gemm::Fp8Gemm(const Device& device, const vk::Pipeline* pipeline, Fp8GemmConfig config,
                 DeviceAddress e4m3_table)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)), e4m3_table_(e4m3_table) {}

Result<Fp8Gemm> Fp8Gemm::create(Device& device, const Fp8GemmConfig& config) {
  HADAL_ASSIGN(const Fp8Pipeline made,
               fp8_config_pipeline(device, Fp8Kernel::kDense, config, sizeof(layout::Fp8GemmPush)));
  return Fp8Gemm(device, made.pipeline, config, made.e4m3_table);
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
  push.e4m3_table = e4m3_table_;
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
  const uint32_t columns = ceil_div(shape.n, config_.group_columns());
  const uint32_t rows = ceil_div(shape.m, config_.tile_m);
  dispatch.groups = {columns, rows, 1};
  if (config_.path == GemmPath::kScalar) dispatch.groups = {rows, columns, 1};
  dispatch.reads = reads;
  dispatch.writes = {&d, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
