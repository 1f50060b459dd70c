#include "info/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "hadal/bf16_gemm.h"
#include "hadal/device.h"
#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/mla_decode.h"
#include "hadal/mla_prefill.h"

namespace hadal::examples {
namespace {

using Json = nlohmann::ordered_json;

Json coop_shapes(const Caps& c) {
  Json shapes = Json::array();
  for (const CoopMatrixShape& s : c.coop_matrix_shapes) {
    shapes.push_back({{"m", s.m},
                      {"n", s.n},
                      {"k", s.k},
                      {"a_type", s.a_type},
                      {"b_type", s.b_type},
                      {"c_type", s.c_type},
                      {"result_type", s.result_type}});
  }
  return shapes;
}

Json paths(const Caps& c) {
  Json result = Json::object();
  for (uint32_t m : {1u, 8u, 64u, 512u, 4096u}) {
    const std::string suffix = fmt::format(" m={}", m);
    result["fp8_gemm" + suffix] =
        fp8_gemm_choose(Fp8GemmShape::packed(m, 7168, 2048), c).to_string();
    result["fp8_grouped_gemm" + suffix] =
        fp8_grouped_gemm_choose(Fp8GroupedGemmShape::packed(m * 8, 256, 2048, 7168), c).to_string();
    result["bf16_gemm" + suffix] =
        bf16_gemm_choose(Bf16GemmShape::packed(m, 129280, 7168), c).to_string();
  }
  result["mla_prefill"] =
      mla_prefill_choose(MlaPrefillShape::packed(0, 512, 128, 128, 64, 128), c).to_string();
  result["mla_decode"] =
      mla_decode_choose(MlaDecodeShape::packed(1, 128, 512, 64, 4096, 4096), c).to_string();
  return result;
}

Json device_json(const Caps& c) {
  Json d;
#define HADAL_FIELD(name) d[#name] = c.name
  HADAL_FIELD(device_name);
  HADAL_FIELD(driver_name);
  HADAL_FIELD(driver_info);
  HADAL_FIELD(vendor_id);
  HADAL_FIELD(device_id);
  HADAL_FIELD(driver_version);
  d["api_version"] = fmt::format("{}.{}.{}", c.api_version >> 22, (c.api_version >> 12) & 0x3ff,
                                 c.api_version & 0xfff);
  HADAL_FIELD(is_cpu);
  HADAL_FIELD(is_discrete);
  d["missing"] = missing_requirement(c);
  HADAL_FIELD(buffer_device_address);
  HADAL_FIELD(shader_int64);
  HADAL_FIELD(storage_buffer_8bit);
  HADAL_FIELD(storage_buffer_16bit);
  HADAL_FIELD(scalar_block_layout);
  HADAL_FIELD(timeline_semaphore);
  HADAL_FIELD(subgroup_arithmetic);
  HADAL_FIELD(subgroup_size);
  HADAL_FIELD(min_subgroup_size);
  HADAL_FIELD(max_subgroup_size);
  HADAL_FIELD(max_workgroup_invocations);
  HADAL_FIELD(max_workgroup_size);
  HADAL_FIELD(max_workgroup_count);
  HADAL_FIELD(max_shared_memory_bytes);
  HADAL_FIELD(max_push_constant_bytes);
  HADAL_FIELD(max_allocation_bytes);
  HADAL_FIELD(max_buffer_bytes);
  HADAL_FIELD(device_heap_bytes);
  HADAL_FIELD(device_heap_free_bytes);
  HADAL_FIELD(timestamp_period_ns);
  HADAL_FIELD(subgroup_size_control);
  HADAL_FIELD(max_workgroup_subgroups);
  HADAL_FIELD(vulkan_memory_model);
  HADAL_FIELD(memory_budget);
  HADAL_FIELD(external_memory_host);
  HADAL_FIELD(host_import_alignment);
  HADAL_FIELD(shader_float16);
  HADAL_FIELD(shader_bfloat16);
  HADAL_FIELD(shader_float8);
  HADAL_FIELD(cooperative_matrix);
  HADAL_FIELD(float8_cooperative_matrix);
  HADAL_FIELD(cooperative_matrix2);
  d["coop_matrix_shapes"] = coop_shapes(c);
  HADAL_FIELD(use_fma);
  HADAL_FIELD(scalar_uniforms);
#undef HADAL_FIELD
  if (missing_requirement(c).empty()) d["paths"] = paths(c);
  return d;
}

}  // namespace

std::string devices_json(std::span<const Caps> devices) {
  Json list = Json::array();
  for (const Caps& c : devices) list.push_back(device_json(c));
  return list.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace hadal::examples
