#include "pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <vector>

#include "device_impl.h"
#include "hadal/device.h"

namespace hadal::vk {
namespace {

constexpr uint32_t kWorkgroupSizeSpecId = 0;  // HADAL_SPEC_WORKGROUP_SIZE in interop.h

Result<EmbeddedModule> find_module(std::string_view name) {
  for (const EmbeddedModule& module : embedded_modules()) {
    if (module.name == name) return module;
  }
  return Status(
      Errc::kUnsupported,
      fmt::format("pipeline: shader module '{}' is not in this build, its glslc is too old", name));
}

Result<VkPipelineLayout> create_layout(DeviceImpl& impl, uint32_t push_bytes) {
  VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes};
  VkPipelineLayoutCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  info.pushConstantRangeCount = 1;
  info.pPushConstantRanges = &range;
  VkPipelineLayout layout = VK_NULL_HANDLE;
  HADAL_TRY(
      to_status(impl.table.CreatePipelineLayout(impl.device, &info, impl.callbacks(), &layout),
                "pipeline: vkCreatePipelineLayout"));
  return layout;
}

Result<VkPipeline> create_pipeline(DeviceImpl& impl, const PipelineKey& key,
                                   std::span<const uint32_t> words, VkPipelineLayout layout) {
  VkShaderModuleCreateInfo module_info{};
  module_info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  module_info.codeSize = words.size_bytes();
  module_info.pCode = words.data();
  VkShaderModule module = VK_NULL_HANDLE;
  HADAL_TRY(
      to_status(impl.table.CreateShaderModule(impl.device, &module_info, impl.callbacks(), &module),
                "pipeline: vkCreateShaderModule"));

  std::vector<VkSpecializationMapEntry> entries;
  std::vector<uint32_t> values;
  for (const SpecConstant& c : std::span(key.constants).first(key.constant_count)) {
    entries.push_back({c.id, uint32_t(values.size() * sizeof(uint32_t)), sizeof(uint32_t)});
    values.push_back(c.value);
  }
  VkSpecializationInfo specialization{uint32_t(entries.size()), entries.data(),
                                      values.size() * sizeof(uint32_t), values.data()};
  VkComputePipelineCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module;
  info.stage.pName = "main";
  info.stage.pSpecializationInfo = &specialization;
  VkPipelineShaderStageRequiredSubgroupSizeCreateInfo required{};
  required.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO;
  required.requiredSubgroupSize = key.subgroup_size;
  if (key.subgroup_size) {
    info.stage.pNext = &required;
    info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
  }
  info.layout = layout;
  VkPipeline pipeline = VK_NULL_HANDLE;
  const VkResult result = impl.table.CreateComputePipelines(impl.device, impl.pipeline_cache, 1,
                                                            &info, impl.callbacks(), &pipeline);
  impl.table.DestroyShaderModule(impl.device, module, impl.callbacks());
  HADAL_TRY(to_status(result, fmt::format("pipeline: creating '{}'", key.module)));
  return pipeline;
}

}  // namespace

bool has_module(std::string_view name) {
  return find_module(name).ok();
}

Pipeline::~Pipeline() {
  device_.table.DestroyPipeline(device_.device, handle_, device_.callbacks());
  device_.table.DestroyPipelineLayout(device_.device, layout_, device_.callbacks());
}

Result<const Pipeline*> Pipeline::get(Device& device, std::string_view module, uint32_t workgroup_x,
                                      std::span<const SpecConstant> constants, uint32_t push_bytes,
                                      uint32_t subgroup_size) {
  DeviceImpl& impl = device.impl();
  PipelineKey key;
  key.module = module, key.push_bytes = push_bytes, key.subgroup_size = subgroup_size;
  assert(constants.size() < PipelineKey::kMaxConstants);
  std::copy(constants.begin(), constants.end(), key.constants.begin());
  key.constants[constants.size()] = {kWorkgroupSizeSpecId, workgroup_x};
  key.constant_count = uint32_t(constants.size()) + 1;
  if (const Pipeline* made = impl.pipelines.find(key)) return made;
  HADAL_ASSIGN(const EmbeddedModule embedded, find_module(module));
  key.module = embedded.name;  // the caller's may go before the pipeline does
  return impl.pipelines.get(key, [&]() -> Result<std::unique_ptr<Pipeline>> {
    HADAL_ASSIGN(const VkPipelineLayout layout, create_layout(impl, push_bytes));
    Result<VkPipeline> handle = create_pipeline(impl, key, embedded.words, layout);
    if (!handle.ok()) {
      impl.table.DestroyPipelineLayout(impl.device, layout, impl.callbacks());
      return handle.status();
    }
    return std::make_unique<Pipeline>(impl, layout, *handle);
  });
}

}  // namespace hadal::vk
