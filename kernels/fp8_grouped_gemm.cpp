#include "hadal/fp8_grouped_gemm.h"

#include <fmt/format.h>

#include "fp8_gemm_util.h"
#include "grouped_gemm_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/fp8_grouped_gemm.h"

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
  return fp8_config_text("fp8_grouped_gemm", *this);
}

Status fp8_grouped_gemm_check(const Fp8GroupedGemmShape& s, const Caps& caps) {
  HADAL_TRY(grouped_gemm_check_rows("fp8_grouped_gemm", s));
  HADAL_TRY(check_fp8_operands("fp8_grouped_gemm", s));
  return grouped_gemm_check_tiles("fp8_grouped_gemm", s, caps);
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
    return grouped_gemm_tiles_fit(shape, tile_m, caps);
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
  return fp8_candidates(Fp8Kernel::kGrouped, fp8_grouped_gemm_choose(shape, caps, untuned),
                        rows_of_an_expert(shape), shape.n, caps, untuned,
                        [&](const Fp8GroupedGemmConfig& config) {
                          return grouped_gemm_tiles_fit(shape, config.tile_m, caps);
                        });
}

Fp8GroupedGemm::Fp8GroupedGemm(const Device& device, const vk::Pipeline* pipeline,
                               Fp8GroupedGemmConfig config, DeviceAddress e4m3_table)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)), e4m3_table_(e4m3_table) {}

Result<Fp8GroupedGemm> Fp8GroupedGemm::create(Device& device, const Fp8GroupedGemmConfig& config) {
  HADAL_ASSIGN(const Fp8Pipeline made, fp8_config_pipeline(device, Fp8Kernel::kGrouped, config,
                                                           sizeof(layout::Fp8GroupedGemmPush)));
  return Fp8GroupedGemm(device, made.pipeline, config, made.e4m3_table);
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
  HADAL_TRY(
      grouped_gemm_check_args("fp8_grouped_gemm", shape, args, config_.tile_m, device_->caps()));
  const uint32_t max_tiles = grouped_gemm_max_tiles(shape.rows, shape.experts, config_.tile_m);

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
