#include "hadal/bf16_grouped_gemm.h"

#include <fmt/format.h>

#include "bf16_gemm_util.h"
#include "grouped_gemm_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/bf16_grouped_gemm.h"
#include "vk/pipeline.h"

namespace hadal {

Bf16GroupedGemmShape Bf16GroupedGemmShape::packed(uint32_t rows, uint32_t experts, uint32_t n,
                                                  uint32_t k) {
  Bf16GroupedGemmShape shape;
  shape.rows = shape.tokens = rows;
  shape.experts = experts, shape.n = n, shape.k = k;
  shape.a_stride = round_up(k, 4);
  shape.b_stride = round_up(k, 8);
  shape.d_stride = n;
  return shape;
}

std::string Bf16GroupedGemmConfig::to_string() const {
  std::string text =
      fmt::format("bf16_grouped_gemm: {}, tile {}x{}, workgroup {}, d {}, {}", gemm_path_name(path),
                  tile_m, tile_n * workgroup_size, workgroup_size,
                  d_type == ElementType::kF32 ? "f32" : "bf16", use_fma ? "fma" : "mul+add");
  if (!rejected.empty()) text.append("; not ").append(rejected);
  return text;
}

Status bf16_grouped_gemm_check(const Bf16GroupedGemmShape& s, const Caps& caps) {
  HADAL_TRY(grouped_gemm_check_rows("bf16_grouped_gemm", s));
  HADAL_TRY(check_bf16_operands("bf16_grouped_gemm", s, ElementType::kF32));
  return grouped_gemm_check_tiles("bf16_grouped_gemm", s, caps);
}

Bf16GroupedGemmConfig bf16_grouped_gemm_choose(const Bf16GroupedGemmShape& shape,
                                               const Caps& caps) {
  Bf16GroupedGemmConfig config;
  config.d_type = shape.d_type;
  config.use_fma = caps.use_fma;
  config.workgroup_size = column_workgroup_size(caps);
  config.tile_m = grouped_gemm_tile_m(shape.rows, shape.expected_rows, shape.experts,
                                      caps.max_workgroup_count[1]);
  config.tile_n = config.tile_m <= 8 ? 1 : 4;  // as bf16_gemm_choose
  config.rejected = coopmat_rejection(caps);
  try_scalar_path(shape.n, shape.k, caps, config);
  return config;
}

Bf16GroupedGemm::Bf16GroupedGemm(const Device& device, const vk::Pipeline* pipeline,
                                 Bf16GroupedGemmConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<Bf16GroupedGemm> Bf16GroupedGemm::create(Device& device,
                                                const Bf16GroupedGemmConfig& config) {
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      vk::Pipeline::get(
          device,
          config.path == GemmPath::kScalar ? "bf16_grouped_gemm_scalar" : "bf16_grouped_gemm",
          config.workgroup_size,
          {{layout::kSpecUseFma, config.use_fma},
           {layout::kBf16GroupedGemmSpecTileM, config.tile_m},
           {layout::kBf16GroupedGemmSpecTileN, config.tile_n},
           {layout::kBf16GroupedGemmSpecStepK, config.step_k},
           {layout::kBf16GroupedGemmSpecRowGroup, config.row_group},
           {layout::kBf16GroupedGemmSpecDBf16, config.d_type == ElementType::kBf16}},
          sizeof(layout::Bf16GroupedGemmPush)));
  return Bf16GroupedGemm(device, pipeline, config);
}

Status Bf16GroupedGemm::record(Recorder& recorder, const Bf16GroupedGemmShape& shape,
                               const Bf16GroupedGemmArgs& args) const {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "bf16_grouped_gemm: " + std::move(text));
  };
  HADAL_TRY(bf16_grouped_gemm_check(shape, device_->caps()));
  if (shape.d_type != config_.d_type) return error("d_type must be the configuration's");
  if (shape.rows == 0 || shape.n == 0) return {};
  HADAL_TRY(
      grouped_gemm_check_args("bf16_grouped_gemm", shape, args, config_.tile_m, device_->caps()));
  const uint32_t max_tiles = grouped_gemm_max_tiles(shape.rows, shape.experts, config_.tile_m);

  layout::Bf16GroupedGemmPush push{};
  push.a = args.a, push.a_rows = args.a_rows;
  push.experts = args.expert_table, push.tiles = args.tiles, push.d = args.d;
  push.n = shape.n, push.k = shape.k;
  push.a_stride = shape.a_stride, push.b_stride = shape.b_stride, push.d_stride = shape.d_stride;

  const DeviceRange reads[] = {{args.a, strided_bytes(shape.tokens, shape.k, shape.a_stride, 4)},
                               {args.a_rows, args.a_rows ? uint64_t{shape.rows} * 4 : 0},
                               {args.expert_table, uint64_t{shape.experts} * sizeof(ExpertWeight)},
                               {args.tiles, uint64_t{max_tiles} * sizeof(MoeTile)}};
  const DeviceRange d{
      args.d, strided_bytes(shape.rows, shape.n, shape.d_stride, element_bytes(shape.d_type))};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "bf16_grouped_gemm";
  dispatch.push = push_bytes(push);
  dispatch.indirect = {args.indirect_buffer->address() + args.indirect_offset, 12};
  dispatch.indirect_buffer = args.indirect_buffer;
  dispatch.reads = reads;
  dispatch.writes = {&d, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
