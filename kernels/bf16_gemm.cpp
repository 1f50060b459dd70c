#include "hadal/bf16_gemm.h"

#include <fmt/format.h>

#include "bf16_gemm_util.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/bf16_gemm.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr uint32_t kLargestTileM = 16;

const char* type_name(ElementType type) {
  return type == ElementType::kF32 ? "f32" : "bf16";
}

// One matrix behind the other, or row by row beside each other.
bool batches_of_d_are_apart(const Bf16GemmShape& s) {
  if (s.batch <= 1 || s.m == 0 || s.n == 0) return true;
  const bool behind = s.d_batch_stride >= uint64_t{s.m - 1} * s.d_stride + s.n;
  const bool beside =
      s.d_batch_stride >= s.n && uint64_t{s.batch - 1} * s.d_batch_stride + s.n <= s.d_stride;
  return behind || beside;
}

// Bytes from the first element of the first batch to the last one of the last.
uint64_t batched_bytes(uint32_t batch, uint64_t batch_stride, uint64_t rows, uint64_t width,
                       uint64_t stride, uint64_t element_bytes) {
  const uint64_t one = strided_bytes(rows, width, stride, element_bytes);
  return one ? (batch - 1) * batch_stride * element_bytes + one : 0;
}

}  // namespace

Bf16GemmShape Bf16GemmShape::packed(uint32_t m, uint32_t n, uint32_t k, ElementType a_type) {
  Bf16GemmShape shape;
  shape.m = m, shape.n = n, shape.k = k;
  shape.a_stride = round_up(k, 16 / element_bytes(a_type));
  shape.b_stride = round_up(k, 8);
  shape.d_stride = n;
  shape.a_type = a_type;
  return shape;
}

std::string Bf16GemmConfig::to_string() const {
  std::string text =
      fmt::format("bf16_gemm: {}, tile {}x{}, workgroup {}, a {}, d {}, {}", gemm_path_name(path),
                  tile_m, tile_n * workgroup_size, workgroup_size, type_name(a_type),
                  type_name(d_type), use_fma ? "fma" : "mul+add");
  if (!rejected.empty()) text.append("; not ").append(rejected);
  return text;
}

Status bf16_gemm_check(const Bf16GemmShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "bf16_gemm: " + std::move(text));
  };
  HADAL_TRY(check_bf16_operands("bf16_gemm", s, s.a_type));
  const uint32_t a_step = 16 / element_bytes(s.a_type);
  if (s.batch > caps.max_workgroup_count[2]) {
    return error(
        fmt::format("batch must be at most {}, got {}", caps.max_workgroup_count[2], s.batch));
  }
  if (s.batch > 1 && s.a_batch_stride % a_step) {
    return error(fmt::format("a_batch_stride must be a multiple of {} elements (16 bytes), got {}",
                             a_step, s.a_batch_stride));
  }
  if (s.batch > 1 && s.b_batch_stride % 8) {
    return error(fmt::format("b_batch_stride must be a multiple of 8 elements (16 bytes), got {}",
                             s.b_batch_stride));
  }
  if (!batches_of_d_are_apart(s)) {
    return error(
        fmt::format("d_batch_stride must keep the batches of d apart, got {} for {} "
                    "batches of {} rows of {}, {} apart",
                    s.d_batch_stride, s.batch, s.m, s.n, s.d_stride));
  }
  const uint64_t max_m = uint64_t{kLargestTileM} * caps.max_workgroup_count[1];
  if (s.m > max_m) return error(fmt::format("m must be at most {}, got {}", max_m, s.m));
  return {};
}

Bf16GemmConfig bf16_gemm_choose(const Bf16GemmShape& shape, const Caps& caps) {
  Bf16GemmConfig config;
  config.a_type = shape.a_type;
  config.d_type = shape.d_type;
  config.use_fma = caps.use_fma;
  config.workgroup_size = column_workgroup_size(caps);
  // Tiles by measurement (bf16_gemm.md): below 16 rows a call is bound by the loads of b, and one
  // column per invocation keeps them simplest; it also gives a GPU the most workgroups.
  config.tile_m = shape.m <= 1   ? 1
                  : shape.m <= 2 ? 2
                  : shape.m <= 4 ? 4
                  : shape.m <= 8 ? 8
                                 : kLargestTileM;
  config.tile_n = config.tile_m <= 8 ? 1 : 4;
  config.rejected = coopmat_rejection(caps);
  try_scalar_path(shape.n, shape.k, caps, config);
  return config;
}

Bf16Gemm::Bf16Gemm(const Device& device, const vk::Pipeline* pipeline, Bf16GemmConfig config)
    : device_(&device), pipeline_(pipeline), config_(std::move(config)) {}

Result<Bf16Gemm> Bf16Gemm::create(Device& device, const Bf16GemmConfig& config) {
  HADAL_ASSIGN(
      const vk::Pipeline* pipeline,
      vk::Pipeline::get(device, config.path == GemmPath::kScalar ? "bf16_gemm_scalar" : "bf16_gemm",
                        config.workgroup_size,
                        {{layout::kSpecUseFma, config.use_fma},
                         {layout::kBf16GemmSpecTileM, config.tile_m},
                         {layout::kBf16GemmSpecTileN, config.tile_n},
                         {layout::kBf16GemmSpecStepK, config.step_k},
                         {layout::kBf16GemmSpecRowGroup, config.row_group},
                         {layout::kBf16GemmSpecABf16, config.a_type == ElementType::kBf16},
                         {layout::kBf16GemmSpecDBf16, config.d_type == ElementType::kBf16}},
                        sizeof(layout::Bf16GemmPush)));
  return Bf16Gemm(device, pipeline, config);
}

Status Bf16Gemm::record(Recorder& recorder, const Bf16GemmShape& shape,
                        const Bf16GemmArgs& args) const {
  HADAL_TRY(bf16_gemm_check(shape, device_->caps()));
  if (shape.a_type != config_.a_type || shape.d_type != config_.d_type) {
    return {Errc::kInvalidArgument, "bf16_gemm: a_type and d_type must be the configuration's"};
  }
  if (args.a % 16 || args.b % 16) {
    return {Errc::kInvalidArgument,
            fmt::format("bf16_gemm: a and b must be 16-byte aligned, got {:#x}, {:#x}", args.a,
                        args.b)};
  }
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) return {};
  if (shape.k == 0 && shape.accumulate) return {};

  layout::Bf16GemmPush push{};
  push.a = args.a, push.b = args.b, push.d = args.d;
  push.m = shape.m, push.n = shape.n, push.k = shape.k;
  push.a_stride = shape.a_stride, push.b_stride = shape.b_stride, push.d_stride = shape.d_stride;
  push.a_batch_stride = shape.a_batch_stride, push.b_batch_stride = shape.b_batch_stride;
  push.d_batch_stride = shape.d_batch_stride;
  push.flags = shape.accumulate ? layout::kBf16GemmFlagAccumulate : 0;

  const DeviceRange d{args.d, batched_bytes(shape.batch, shape.d_batch_stride, shape.m, shape.n,
                                            shape.d_stride, element_bytes(shape.d_type))};
  const DeviceRange reads[] = {
      {args.a, batched_bytes(shape.batch, shape.a_batch_stride, shape.m, shape.k, shape.a_stride,
                             element_bytes(shape.a_type))},
      {args.b,
       batched_bytes(shape.batch, shape.b_batch_stride, shape.n, shape.k, shape.b_stride, 2)},
      {args.d, shape.accumulate ? d.bytes : 0}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "bf16_gemm";
  dispatch.push = push_bytes(push);
  const uint32_t columns = ceil_div(shape.n, config_.tile_n * config_.workgroup_size);
  const uint32_t rows = ceil_div(shape.m, config_.tile_m);
  dispatch.groups = {columns, rows, shape.batch};
  if (config_.path == GemmPath::kScalar) dispatch.groups = {rows, columns, shape.batch};
  dispatch.reads = reads;
  dispatch.writes = {&d, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
