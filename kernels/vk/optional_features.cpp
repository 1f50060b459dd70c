#include "optional_features.h"

#include <algorithm>

#include "feature_table.h"

namespace hadal::vk {
namespace {

// Names, because the headers of Debian 12 lack some of the extensions.
constexpr const char* kSubgroupSizeControl = "VK_EXT_subgroup_size_control";
constexpr const char* kCooperativeMatrix = "VK_KHR_cooperative_matrix";
constexpr const char* kFloat8 = "VK_EXT_shader_float8";
constexpr const char* kExternalMemoryHost = "VK_EXT_external_memory_host";

template <class Struct>
void link(Struct& features, VkStructureType type, void*& head) {
  features.sType = type;
  features.pNext = head;
  head = &features;
}

bool enables(const VkDeviceCreateInfo& info, std::string_view name) {
  return std::any_of(info.ppEnabledExtensionNames,
                     info.ppEnabledExtensionNames + info.enabledExtensionCount,
                     [&](const char* enabled) { return name == enabled; });
}

}  // namespace

bool has_extension(const std::vector<VkExtensionProperties>& extensions, std::string_view name) {
  return std::any_of(extensions.begin(), extensions.end(),
                     [&](const auto& e) { return name == e.extensionName; });
}

OptionalFeatures query_optional_features(const InstanceTable& table, VkPhysicalDevice device,
                                         uint32_t api_version,
                                         const std::vector<VkExtensionProperties>& extensions) {
  const bool has_13 = api_version >= VK_API_VERSION_1_3;
  void* head = nullptr;
  VkPhysicalDeviceVulkan12Features v12{};
  link(v12, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, head);
  VkPhysicalDeviceSubgroupSizeControlFeatures size_control{};
  if (has_13 || has_extension(extensions, kSubgroupSizeControl)) {
    link(size_control, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, head);
  }
#ifdef VK_KHR_cooperative_matrix
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix{};
  if (has_extension(extensions, kCooperativeMatrix)) {
    link(matrix, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, head);
  }
#endif
#ifdef VK_EXT_shader_float8
  VkPhysicalDeviceShaderFloat8FeaturesEXT float8{};
  if (has_extension(extensions, kFloat8)) {
    link(float8, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT8_FEATURES_EXT, head);
  }
#endif
  VkPhysicalDeviceFeatures2 features{};
  features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features.pNext = head;
  table.GetPhysicalDeviceFeatures2(device, &features);

  OptionalFeatures result;
  result.shader_float16 = v12.shaderFloat16;
  result.vulkan_memory_model = v12.vulkanMemoryModel && v12.vulkanMemoryModelDeviceScope;
  result.subgroup_size_control =
      size_control.subgroupSizeControl && size_control.computeFullSubgroups;
#ifdef VK_KHR_cooperative_matrix
  result.cooperative_matrix = matrix.cooperativeMatrix;
#endif
#ifdef VK_EXT_shader_float8
  result.float8 = float8.shaderFloat8;
  result.float8_cooperative_matrix = float8.shaderFloat8CooperativeMatrix;
#endif
  result.external_memory_host = has_extension(extensions, kExternalMemoryHost);
  return result;
}

OptionalFeatures enabled_features(const VkDeviceCreateInfo* info, uint32_t api_version) {
  OptionalFeatures on;
  if (!info) return on;
  for (const FeatureBit& bit : feature_table()) {
    if (bit.optional) on.*bit.optional = true;
  }
  for (const FeatureBit& bit : feature_table()) {
    if (bit.optional && !is_on(*info, bit)) on.*bit.optional = false;
  }
  const bool has_13 = api_version >= VK_API_VERSION_1_3;
  on.subgroup_size_control &= has_13 || enables(*info, kSubgroupSizeControl);
  on.cooperative_matrix &= enables(*info, kCooperativeMatrix);
  on.float8 &= enables(*info, kFloat8);
  on.float8_cooperative_matrix &= on.float8;
  on.external_memory_host = enables(*info, kExternalMemoryHost);
  return on;
}

void keep_usable(const OptionalFeatures& on, Caps& caps) {
  caps.shader_float16 &= on.shader_float16;
  caps.vulkan_memory_model &= on.vulkan_memory_model;
  caps.subgroup_size_control &= on.subgroup_size_control;
  // Every cooperative-matrix shader declares the Vulkan memory model.
  caps.cooperative_matrix &= on.cooperative_matrix && on.vulkan_memory_model;
  caps.shader_float8 &= on.float8;
  caps.float8_cooperative_matrix &=
      on.float8_cooperative_matrix && caps.cooperative_matrix && caps.shader_float8;
  caps.external_memory_host &= on.external_memory_host;
  if (!caps.external_memory_host) caps.host_import_alignment = 0;
  if (!caps.cooperative_matrix) caps.coop_matrix_shapes.clear();
}

OptionalChain::OptionalChain(const Caps& caps, void* tail) : head(tail) {
  if (caps.external_memory_host) extensions.push_back(kExternalMemoryHost);
  if (caps.subgroup_size_control) {
    if (caps.api_version < VK_API_VERSION_1_3) extensions.push_back(kSubgroupSizeControl);
    link(size_control_, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, head);
    size_control_.subgroupSizeControl = size_control_.computeFullSubgroups = VK_TRUE;
  }
#ifdef VK_KHR_cooperative_matrix
  if (caps.cooperative_matrix) {
    extensions.push_back(kCooperativeMatrix);
    link(matrix_, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, head);
    matrix_.cooperativeMatrix = VK_TRUE;
  }
#endif
#ifdef VK_EXT_shader_float8
  if (caps.shader_float8) {
    extensions.push_back(kFloat8);
    link(float8_, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT8_FEATURES_EXT, head);
    float8_.shaderFloat8 = VK_TRUE;
    float8_.shaderFloat8CooperativeMatrix = caps.float8_cooperative_matrix;
  }
#endif
}

}  // namespace hadal::vk
