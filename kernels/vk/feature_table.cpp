#include "feature_table.h"

#include <string_view>

namespace hadal::vk {
namespace {

using Features12 = VkPhysicalDeviceVulkan12Features;
using Features13 = VkPhysicalDeviceVulkan13Features;
constexpr uint32_t k12 = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
constexpr uint32_t k13 = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
constexpr uint32_t kModel = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES;
constexpr uint32_t kSizes = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES;
constexpr const char* k12Name = "VkPhysicalDeviceVulkan12Features";
constexpr const char* kSizesName = "VkPhysicalDeviceSubgroupSizeControlFeatures";
constexpr const char* kMatrices = "cooperative matrices";
constexpr const char* kTimeline = "timelineSemaphore";

// Columns: see FeatureBit. Names of extensions, because the headers of Debian 12 lack some.
const FeatureBit kTable[] = {
    {"shaderInt64",
     "VkPhysicalDeviceFeatures2",
     nullptr,
     false,
     "addresses in shaders",
     true,
     &Caps::shader_int64,
     nullptr,
     {{{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
        offsetof(VkPhysicalDeviceFeatures2, features.shaderInt64)}}}},
    {"storageBuffer16BitAccess",
     "VkPhysicalDeviceVulkan11Features",
     nullptr,
     false,
     "bfloat16 operands",
     true,
     &Caps::storage_buffer_16bit,
     nullptr,
     {{{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        offsetof(VkPhysicalDeviceVulkan11Features, storageBuffer16BitAccess)},
       {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES,
        offsetof(VkPhysicalDevice16BitStorageFeatures, storageBuffer16BitAccess)}}}},
    {"storageBuffer8BitAccess",
     k12Name,
     nullptr,
     false,
     "e4m3 operands",
     true,
     &Caps::storage_buffer_8bit,
     nullptr,
     {{{k12, offsetof(Features12, storageBuffer8BitAccess)},
       {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES,
        offsetof(VkPhysicalDevice8BitStorageFeatures, storageBuffer8BitAccess)}}}},
    {"bufferDeviceAddress",
     k12Name,
     nullptr,
     false,
     "every operand",
     true,
     &Caps::buffer_device_address,
     nullptr,
     {{{k12, offsetof(Features12, bufferDeviceAddress)},
       {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES,
        offsetof(VkPhysicalDeviceBufferDeviceAddressFeatures, bufferDeviceAddress)}}}},
    {"scalarBlockLayout",
     k12Name,
     nullptr,
     false,
     "layout of operands",
     true,
     &Caps::scalar_block_layout,
     nullptr,
     {{{k12, offsetof(Features12, scalarBlockLayout)},
       {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SCALAR_BLOCK_LAYOUT_FEATURES,
        offsetof(VkPhysicalDeviceScalarBlockLayoutFeatures, scalarBlockLayout)}}}},
    {kTimeline,
     k12Name,
     nullptr,
     false,
     "hadal's own submissions, on a device lent with a queue",
     false,
     &Caps::timeline_semaphore,
     nullptr,
     {{{k12, offsetof(Features12, timelineSemaphore)},
       {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
        offsetof(VkPhysicalDeviceTimelineSemaphoreFeatures, timelineSemaphore)}}}},
    {"shaderFloat16",
     k12Name,
     nullptr,
     false,
     kMatrices,
     false,
     &Caps::shader_float16,
     &OptionalFeatures::shader_float16,
     {{{k12, offsetof(Features12, shaderFloat16)},
       {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
        offsetof(VkPhysicalDeviceShaderFloat16Int8Features, shaderFloat16)}}}},
    {"vulkanMemoryModel",
     k12Name,
     nullptr,
     false,
     kMatrices,
     false,
     &Caps::vulkan_memory_model,
     &OptionalFeatures::vulkan_memory_model,
     {{{k12, offsetof(Features12, vulkanMemoryModel)},
       {kModel, offsetof(VkPhysicalDeviceVulkanMemoryModelFeatures, vulkanMemoryModel)}}}},
    {"vulkanMemoryModelDeviceScope",
     k12Name,
     nullptr,
     false,
     kMatrices,
     false,
     &Caps::vulkan_memory_model,
     &OptionalFeatures::vulkan_memory_model,
     {{{k12, offsetof(Features12, vulkanMemoryModelDeviceScope)},
       {kModel,
        offsetof(VkPhysicalDeviceVulkanMemoryModelFeatures, vulkanMemoryModelDeviceScope)}}}},
    {"subgroupSizeControl",
     kSizesName,
     "VK_EXT_subgroup_size_control",
     true,
     kMatrices,
     false,
     &Caps::subgroup_size_control,
     &OptionalFeatures::subgroup_size_control,
     {{{kSizes, offsetof(VkPhysicalDeviceSubgroupSizeControlFeatures, subgroupSizeControl)},
       {k13, offsetof(Features13, subgroupSizeControl)}}}},
    {"computeFullSubgroups",
     kSizesName,
     "VK_EXT_subgroup_size_control",
     true,
     kMatrices,
     false,
     &Caps::subgroup_size_control,
     &OptionalFeatures::subgroup_size_control,
     {{{kSizes, offsetof(VkPhysicalDeviceSubgroupSizeControlFeatures, computeFullSubgroups)},
       {k13, offsetof(Features13, computeFullSubgroups)}}}},
#ifdef VK_KHR_cooperative_matrix
    {"cooperativeMatrix",
     "VkPhysicalDeviceCooperativeMatrixFeaturesKHR",
     "VK_KHR_cooperative_matrix",
     false,
     kMatrices,
     false,
     &Caps::cooperative_matrix,
     &OptionalFeatures::cooperative_matrix,
     {{{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        offsetof(VkPhysicalDeviceCooperativeMatrixFeaturesKHR, cooperativeMatrix)}}}},
#endif
#ifdef VK_EXT_shader_float8
    {"shaderFloat8",
     "VkPhysicalDeviceShaderFloat8FeaturesEXT",
     "VK_EXT_shader_float8",
     false,
     "matrices of float8, on request",
     false,
     &Caps::shader_float8,
     &OptionalFeatures::float8,
     {{{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT8_FEATURES_EXT,
        offsetof(VkPhysicalDeviceShaderFloat8FeaturesEXT, shaderFloat8)}}}},
    {"shaderFloat8CooperativeMatrix",
     "VkPhysicalDeviceShaderFloat8FeaturesEXT",
     "VK_EXT_shader_float8",
     false,
     "matrices of float8, on request",
     false,
     &Caps::float8_cooperative_matrix,
     &OptionalFeatures::float8_cooperative_matrix,
     {{{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT8_FEATURES_EXT,
        offsetof(VkPhysicalDeviceShaderFloat8FeaturesEXT, shaderFloat8CooperativeMatrix)}}}},
#endif
};

}  // namespace

std::span<const FeatureBit> feature_table() {
  return kTable;
}

const char* extension_of(const FeatureBit& bit, uint32_t api_version) {
  return bit.core_in_13 && api_version >= VK_API_VERSION_1_3 ? nullptr : bit.extension;
}

VkBool32* find_bit(void* chain, const FeatureBit& bit) {
  for (auto* s = static_cast<VkBaseOutStructure*>(chain); s; s = s->pNext) {
    for (const FeatureBit::Place& place : bit.places) {
      if (place.structure_type == 0 || uint32_t(s->sType) != place.structure_type) continue;
      return reinterpret_cast<VkBool32*>(reinterpret_cast<std::byte*>(s) + place.offset);
    }
  }
  return nullptr;
}

bool is_on(const VkDeviceCreateInfo& info, const FeatureBit& bit) {
  // find_bit only hands out the address; nothing here writes through it.
  const VkBool32* on = find_bit(const_cast<void*>(info.pNext), bit);
  if (on) return *on;
  return bit.usable == &Caps::shader_int64 && info.pEnabledFeatures &&
         info.pEnabledFeatures->shaderInt64;
}

const FeatureBit* first_required_off(const VkDeviceCreateInfo& info, bool submits) {
  for (const FeatureBit& bit : feature_table()) {
    const bool needed = bit.required || (submits && bit.name == std::string_view(kTimeline));
    if (needed && !is_on(info, bit)) return &bit;
  }
  return nullptr;
}

}  // namespace hadal::vk
