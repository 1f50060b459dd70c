#include "hadal/caps.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "instance.h"
#include "optional_features.h"
#include "quirks.h"

namespace hadal {

Caps minimum_caps(uint32_t subgroup_size) {
  Caps caps;
  caps.device_name = "minimum";
  caps.api_version = VK_API_VERSION_1_2;
  caps.buffer_device_address = caps.shader_int64 = true;
  caps.storage_buffer_8bit = caps.storage_buffer_16bit = true;
  caps.scalar_block_layout = caps.timeline_semaphore = caps.subgroup_arithmetic = true;
  caps.subgroup_size = caps.min_subgroup_size = caps.max_subgroup_size = subgroup_size;
  // The minimum maxima of the Vulkan 1.2 specification, table "Required Limits".
  caps.max_workgroup_invocations = 128;
  caps.max_workgroup_size = {128, 128, 64};
  caps.max_workgroup_count = {65535, 65535, 65535};
  caps.max_shared_memory_bytes = 16384;
  caps.max_push_constant_bytes = 128;
  caps.max_allocation_bytes = uint64_t{1} << 30;
  caps.max_buffer_bytes = uint64_t{1} << 30;
  return caps;
}

std::string missing_requirement(const Caps& caps) {
  if (caps.api_version < VK_API_VERSION_1_2) return "Vulkan 1.2";
  if (!caps.buffer_device_address) return "bufferDeviceAddress";
  if (!caps.shader_int64) return "shaderInt64";
  if (!caps.storage_buffer_8bit) return "storageBuffer8BitAccess";
  if (!caps.storage_buffer_16bit) return "storageBuffer16BitAccess";
  if (!caps.scalar_block_layout) return "scalarBlockLayout";
  if (!caps.timeline_semaphore) return "timelineSemaphore";
  if (!caps.subgroup_arithmetic) return "subgroup arithmetic in compute shaders";
  return {};
}

namespace vk {
namespace {

struct Features {
  VkPhysicalDeviceFeatures2 core{};
  VkPhysicalDeviceVulkan11Features v11{};
  VkPhysicalDeviceVulkan12Features v12{};
};

void fill_identity_and_limits(const InstanceTable& table, VkPhysicalDevice device, Caps& caps,
                              VkDriverId& driver) {
  VkPhysicalDeviceProperties basic{};
  table.GetPhysicalDeviceProperties(device, &basic);
  VkPhysicalDeviceDriverProperties driver_properties{};
  driver_properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES;
  VkPhysicalDeviceSubgroupProperties subgroup{};
  subgroup.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES;
  subgroup.pNext = &driver_properties;
  VkPhysicalDeviceMaintenance3Properties maintenance{};
  maintenance.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES;
  maintenance.pNext = &subgroup;
  VkPhysicalDeviceSubgroupSizeControlProperties size_control{};
  size_control.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES;
  size_control.pNext = &maintenance;
  VkPhysicalDeviceExternalMemoryHostPropertiesEXT host_memory{};
  host_memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT;
  if (caps.external_memory_host) {
    host_memory.pNext = maintenance.pNext;
    maintenance.pNext = &host_memory;
  }
  VkPhysicalDeviceProperties2 properties{};
  properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  const bool sized = caps.subgroup_size_control;
  properties.pNext = sized ? static_cast<void*>(&size_control) : static_cast<void*>(&maintenance);
  table.GetPhysicalDeviceProperties2(device, &properties);

  driver = driver_properties.driverID;
  caps.driver_name = driver_properties.driverName;
  caps.driver_info = driver_properties.driverInfo;
  const VkPhysicalDeviceLimits& limits = basic.limits;
  caps.subgroup_size = subgroup.subgroupSize;
  caps.min_subgroup_size = sized ? size_control.minSubgroupSize : subgroup.subgroupSize;
  caps.max_subgroup_size = sized ? size_control.maxSubgroupSize : subgroup.subgroupSize;
  caps.max_workgroup_subgroups = sized ? size_control.maxComputeWorkgroupSubgroups : 0;
  if (!(size_control.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT)) {
    caps.subgroup_size_control = false;
  }
  const VkSubgroupFeatureFlags needed =
      VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
  caps.subgroup_arithmetic = (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
                             (subgroup.supportedOperations & needed) == needed;
  caps.max_workgroup_invocations = limits.maxComputeWorkGroupInvocations;
  std::copy_n(limits.maxComputeWorkGroupSize, 3, caps.max_workgroup_size.begin());
  std::copy_n(limits.maxComputeWorkGroupCount, 3, caps.max_workgroup_count.begin());
  caps.max_shared_memory_bytes = limits.maxComputeSharedMemorySize;
  caps.max_push_constant_bytes = limits.maxPushConstantsSize;
  caps.max_allocation_bytes = maintenance.maxMemoryAllocationSize;
  caps.max_buffer_bytes = maintenance.maxMemoryAllocationSize;
  caps.timestamp_period_ns = limits.timestampPeriod;
  caps.host_import_alignment = host_memory.minImportedHostPointerAlignment;
}

// Everything optional, for keep_usable to take away from.
void claim_all(Caps& caps) {
  caps.subgroup_size_control = caps.vulkan_memory_model = caps.shader_float16 = true;
  caps.shader_float8 = caps.cooperative_matrix = caps.float8_cooperative_matrix = true;
  caps.external_memory_host = true;
}

void fill_features(const InstanceTable& table, VkPhysicalDevice device,
                   const std::vector<VkExtensionProperties>& extensions, Caps& caps) {
  Features features;
  features.v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  features.v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  features.v11.pNext = &features.v12;
  features.core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features.core.pNext = &features.v11;
  table.GetPhysicalDeviceFeatures2(device, &features.core);
  caps.shader_int64 = features.core.features.shaderInt64;
  caps.storage_buffer_16bit = features.v11.storageBuffer16BitAccess;
  caps.storage_buffer_8bit = features.v12.storageBuffer8BitAccess;
  caps.buffer_device_address = features.v12.bufferDeviceAddress;
  caps.scalar_block_layout = features.v12.scalarBlockLayout;
  caps.timeline_semaphore = features.v12.timelineSemaphore;
  caps.memory_budget = has_extension(extensions, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
  caps.shader_bfloat16 = has_extension(extensions, "VK_KHR_shader_bfloat16");
  caps.cooperative_matrix2 = has_extension(extensions, "VK_NV_cooperative_matrix2");
}

void fill_memory(const InstanceTable& table, VkPhysicalDevice device, Caps& caps) {
  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget{};
  budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
  VkPhysicalDeviceMemoryProperties2 memory{};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  if (caps.memory_budget) memory.pNext = &budget;
  table.GetPhysicalDeviceMemoryProperties2(device, &memory);
  for (uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; ++i) {
    const VkMemoryHeap& heap = memory.memoryProperties.memoryHeaps[i];
    if (!(heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) || heap.size <= caps.device_heap_bytes) {
      continue;
    }
    caps.device_heap_bytes = heap.size;
    caps.device_heap_free_bytes = heap.size;
    if (caps.memory_budget) {
      const uint64_t used = std::min(budget.heapUsage[i], budget.heapBudget[i]);
      caps.device_heap_free_bytes = budget.heapBudget[i] - used;
    }
  }
}

void fill_coop_matrix(const InstanceTable& table, PFN_vkGetInstanceProcAddr get,
                      VkInstance instance, VkPhysicalDevice device, Caps& caps) {
#ifdef VK_KHR_cooperative_matrix
  const auto query = reinterpret_cast<PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR>(
      get(instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR"));
  if (!caps.cooperative_matrix) return;
  VkPhysicalDeviceCooperativeMatrixPropertiesKHR matrix{};
  matrix.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
  VkPhysicalDeviceProperties2 properties{};
  properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  properties.pNext = &matrix;
  table.GetPhysicalDeviceProperties2(device, &properties);
  if (!query || !(matrix.cooperativeMatrixSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT)) {
    caps.cooperative_matrix = caps.float8_cooperative_matrix = false;
    return;
  }
  uint32_t count = 0;
  if (query(device, &count, nullptr) != VK_SUCCESS) return;
  VkCooperativeMatrixPropertiesKHR blank{};
  blank.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
  std::vector<VkCooperativeMatrixPropertiesKHR> shapes(count, blank);
  if (query(device, &count, shapes.data()) != VK_SUCCESS) return;
  for (const auto& s : shapes) {
    if (s.scope != VK_SCOPE_SUBGROUP_KHR || s.saturatingAccumulation) continue;
    caps.coop_matrix_shapes.push_back({s.MSize, s.NSize, s.KSize, uint32_t(s.AType),
                                       uint32_t(s.BType), uint32_t(s.CType),
                                       uint32_t(s.ResultType)});
  }
#else
  (void)table, (void)get, (void)instance, (void)device, (void)caps;
#endif
}

}  // namespace

Caps query_caps(const InstanceTable& table, PFN_vkGetInstanceProcAddr get, VkInstance instance,
                VkPhysicalDevice device, uint32_t max_api_version) {
  Caps caps;
  VkPhysicalDeviceProperties basic{};
  table.GetPhysicalDeviceProperties(device, &basic);
  caps.device_name = basic.deviceName;
  caps.vendor_id = basic.vendorID;
  caps.device_id = basic.deviceID;
  caps.driver_version = basic.driverVersion;
  caps.is_cpu = basic.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
  caps.is_discrete = basic.deviceType == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
  std::copy_n(basic.pipelineCacheUUID, 16, caps.pipeline_cache_uuid.begin());
  caps.api_version =
      max_api_version ? std::min(basic.apiVersion, max_api_version) : basic.apiVersion;
  if (caps.api_version < VK_API_VERSION_1_2) return caps;

  uint32_t count = 0;
  std::vector<VkExtensionProperties> extensions;
  if (table.EnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr) == VK_SUCCESS) {
    extensions.resize(count);
    (void)table.EnumerateDeviceExtensionProperties(device, nullptr, &count, extensions.data());
  }
  VkDriverId driver{};
  const OptionalFeatures offered =
      query_optional_features(table, device, caps.api_version, extensions);
  claim_all(caps);
  keep_usable(offered, caps);
  fill_identity_and_limits(table, device, caps, driver);
  fill_features(table, device, extensions, caps);
  fill_memory(table, device, caps);
  fill_coop_matrix(table, get, instance, device, caps);
  apply_quirks(driver, caps);
  return caps;
}

}  // namespace vk
}  // namespace hadal
