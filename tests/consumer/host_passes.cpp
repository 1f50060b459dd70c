// A host with passes of its own: in one command buffer its shader scales the activations' scales,
// hadal makes the tile list and multiplies by each row's expert, and the host's shader scales the
// result. Checked against the formula in double.
#include <cmath>
#include <cstdint>
#include <vector>

#include "vulkan_host.h"

namespace {

constexpr uint32_t kScaleShader[] = {
#include "scale.inc"
};

constexpr uint32_t kRows = 11, kExperts = 4, kN = 70, kK = 256, kBlocks = 2;
constexpr uint32_t kEnds[kExperts] = {3, 3, 10, 11};  // expert 1 has no row

// The host's pass: y = factor * x.
struct ScalePass {
  struct Push {
    VkDeviceAddress x, y;
    uint32_t count;
    float factor;
  };
  host_device& device;
  VkPipelineLayout layout = VK_NULL_HANDLE;
  VkPipeline pipeline = VK_NULL_HANDLE;

  explicit ScalePass(host_device& d) : device(d) {
    VkShaderModuleCreateInfo code{};
    code.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
    code.codeSize = sizeof(kScaleShader);
    code.pCode = kScaleShader;
    VkShaderModule module = VK_NULL_HANDLE;
    HOST_CHECK(HOST_DEVICE_FN(&d, CreateShaderModule)(d.device, &code, nullptr, &module) ==
               VK_SUCCESS);
    const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(Push)};
    VkPipelineLayoutCreateInfo layout_info{};
    layout_info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
    layout_info.pushConstantRangeCount = 1;
    layout_info.pPushConstantRanges = &range;
    HOST_CHECK(HOST_DEVICE_FN(&d, CreatePipelineLayout)(d.device, &layout_info, nullptr, &layout) ==
               VK_SUCCESS);
    VkComputePipelineCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
    info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
    info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
    info.stage.module = module;
    info.stage.pName = "main";
    info.layout = layout;
    HOST_CHECK(HOST_DEVICE_FN(&d, CreateComputePipelines)(d.device, VK_NULL_HANDLE, 1, &info,
                                                          nullptr, &pipeline) == VK_SUCCESS);
    HOST_DEVICE_FN(&d, DestroyShaderModule)(d.device, module, nullptr);
  }
  ~ScalePass() {
    HOST_DEVICE_FN(&device, DestroyPipeline)(device.device, pipeline, nullptr);
    HOST_DEVICE_FN(&device, DestroyPipelineLayout)(device.device, layout, nullptr);
  }
  void record(VkCommandBuffer commands, const host_buffer& x, const host_buffer& y, float factor) {
    const Push push{x.address, y.address, uint32_t(x.bytes / 4), factor};
    HOST_DEVICE_FN(&device, CmdBindPipeline)(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    HOST_DEVICE_FN(&device, CmdPushConstants)
    (commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(push), &push);
    HOST_DEVICE_FN(&device, CmdDispatch)(commands, (push.count + 63) / 64, 1, 1);
  }
};

template <class T>
T sized() {
  T value{};
  value.struct_size = sizeof(T);
  return value;
}

double decode_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double magnitude =
      exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
  return code & 0x80 ? -magnitude : magnitude;
}

struct Operands {
  host_buffer a, a_scale, raw_scale, table, segments, tiles, indirect, d, doubled;
  host_buffer b[kExperts], b_scale[kExperts];
};

Operands make_operands(host_device& device) {
  uint32_t state = 12345;
  const auto random = [&] { return (state = state * 1664525 + 1013904223) >> 8; };
  const auto codes = [&](host_buffer& b) {
    for (uint64_t i = 0; i < b.bytes; ++i) {
      const auto code = uint8_t(random());
      static_cast<uint8_t*>(b.mapped)[i] = (code & 0x7f) == 0x7f ? uint8_t(code ^ 1) : code;
    }
  };
  const auto floats = [&](host_buffer& b) {
    for (uint64_t i = 0; i < b.bytes / 4; ++i) {
      static_cast<float*>(b.mapped)[i] = 0.001f + float(random() % 1000) * 1e-5f;
    }
  };
  Operands o{};
  o.a = host_buffer_create(&device, kRows * kK, 0), codes(o.a);
  o.raw_scale = host_buffer_create(&device, kRows * kBlocks * 4, 0), floats(o.raw_scale);
  o.a_scale = host_buffer_create(&device, kRows * kBlocks * 4, 0xff);
  o.table = host_buffer_create(&device, kExperts * sizeof(hadal_device_expert), 0);
  for (uint32_t e = 0; e < kExperts; ++e) {
    o.b[e] = host_buffer_create(&device, kN * kK, 0), codes(o.b[e]);
    o.b_scale[e] = host_buffer_create(&device, kBlocks * 4, 0), floats(o.b_scale[e]);
    static_cast<hadal_device_expert*>(o.table.mapped)[e] = {o.b[e].address, o.b_scale[e].address};
  }
  o.segments = host_buffer_create(&device, sizeof(kEnds), 0);
  memcpy(o.segments.mapped, kEnds, sizeof(kEnds));
  o.tiles = host_buffer_create(&device, kRows * sizeof(hadal_device_moe_tile), 0xff);
  o.indirect = host_buffer_create(&device, 64, 0xff);
  o.d = host_buffer_create(&device, kRows * kN * 4, 0xff);
  o.doubled = host_buffer_create(&device, kRows * kN * 4, 0xff);
  return o;
}

void destroy_operands(host_device& device, Operands& o) {
  for (host_buffer* b : {&o.a, &o.a_scale, &o.raw_scale, &o.table, &o.segments, &o.tiles,
                         &o.indirect, &o.d, &o.doubled}) {
    host_buffer_destroy(&device, b);
  }
  for (uint32_t e = 0; e < kExperts; ++e) {
    host_buffer_destroy(&device, &o.b[e]);
    host_buffer_destroy(&device, &o.b_scale[e]);
  }
}

// The largest error over the magnitudes; `factor` is both passes' together.
double worst_error(const Operands& o, double factor) {
  double worst = 0;
  for (uint32_t r = 0; r < kRows; ++r) {
    uint32_t e = 0;
    while (kEnds[e] <= r) ++e;
    for (uint32_t n = 0; n < kN; ++n) {
      double sum = 0, magnitude = 0;
      for (uint32_t k = 0; k < kK; ++k) {
        const double term = factor * decode_e4m3(static_cast<uint8_t*>(o.a.mapped)[r * kK + k]) *
                            decode_e4m3(static_cast<uint8_t*>(o.b[e].mapped)[n * kK + k]) *
                            static_cast<float*>(o.raw_scale.mapped)[r * kBlocks + k / 128] *
                            static_cast<float*>(o.b_scale[e].mapped)[k / 128];
        sum += term, magnitude += std::fabs(term);
      }
      const double got = static_cast<float*>(o.doubled.mapped)[r * kN + n];
      const double error = std::fabs(got - sum);
      if (!(error <= worst * magnitude)) worst = error / magnitude;
    }
  }
  return worst;
}

}  // namespace

int main() {
  static host_instance instance;
  static host_device device;
  VkPhysicalDevice devices[8];
  hadal_error error = HADAL_ERROR_INIT;
  if (!host_instance_create(&instance) || host_physical_devices(&instance, devices) == 0) {
    fprintf(stderr, "no Vulkan device or validation layer\n");
    return 77;
  }
  host_device_create(&instance, devices[0], &device);
  const hadal_context_info info = host_context_info(&device);
  hadal_context* context = nullptr;
  HOST_OK(hadal_context_create(&info, &context, &error));
  Operands o = make_operands(device);

  auto desc = sized<hadal_fp8_grouped_gemm_desc>();
  desc.rows = kRows, desc.experts = kExperts, desc.n = kN, desc.k = kK;
  hadal_plan* gemm = nullptr;
  HOST_OK(hadal_fp8_grouped_gemm_plan(context, &desc, &gemm, &error));
  auto tiling = sized<hadal_grouped_tiling>();
  HOST_OK(hadal_grouped_gemm_tiling(gemm, &tiling, &error));
  HOST_CHECK(tiling.max_tiles <= kRows);
  auto list = sized<hadal_moe_tiles_desc>();
  list.experts = kExperts, list.rows = kRows, list.tile_m = tiling.tile_m;
  list.command_count = 1, list.groups_x[0] = tiling.groups_x;
  hadal_plan* tiles = nullptr;
  HOST_OK(hadal_moe_tiles_plan(context, &list, &tiles, &error));
  {
    ScalePass pass(device);
    VkCommandBuffer commands = host_begin(&device, device.pool);
    pass.record(commands, o.raw_scale, o.a_scale, 4.0f);
    auto list_args = sized<hadal_moe_tiles_args>();
    list_args.segments = host_range(&o.segments), list_args.tiles = host_range(&o.tiles);
    list_args.commands = host_buffer_range(&o.indirect, 16);
    HOST_OK(hadal_moe_tiles_record(tiles, commands, &list_args, &error));
    HOST_OK(hadal_barrier_record(context, commands, &error));
    auto args = sized<hadal_fp8_grouped_gemm_args>();
    args.rows = kRows, args.a = host_range(&o.a), args.a_scale = host_range(&o.a_scale);
    args.expert_table = host_range(&o.table), args.tiles = host_range(&o.tiles);
    args.indirect = host_buffer_range(&o.indirect, 16), args.d = host_range(&o.d);
    HOST_OK(hadal_fp8_grouped_gemm_record(gemm, commands, &args, &error));
    HOST_OK(hadal_barrier_record(context, commands, &error));
    pass.record(commands, o.d, o.doubled, 2.0f);
    host_submit(&device, device.queue, commands);
  }
  // Both passes scale by powers of two, exactly; the product rounds as in host_c.c.
  const double worst = worst_error(o, 8.0);
  printf("%s\nworst error %.3g of the magnitudes\n", hadal_plan_description(gemm), worst);
  HOST_CHECK(worst <= 132 * std::ldexp(1.0, -23));

  hadal_plan_destroy(tiles);
  hadal_plan_destroy(gemm);
  HOST_OK(hadal_context_destroy(context, &error));
  destroy_operands(device, o);
  host_device_destroy(&device);
  host_instance_destroy(&instance);
  HOST_CHECK(instance.messages == 0);
  return 0;
}
