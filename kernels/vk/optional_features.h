// Optional device features: which a physical device offers, which a device has enabled, and the
// chain that enables them. Caps then say "usable": offered, and on.
#pragma once

#include <string_view>
#include <vector>

#include "dispatch_table.h"
#include "hadal/caps.h"

namespace hadal::vk {

struct OptionalFeatures {
  bool shader_float16 = false;
  bool vulkan_memory_model = false;
  bool subgroup_size_control = false;  // with full subgroups, in compute shaders
  bool cooperative_matrix = false;
  bool float8 = false;
  bool float8_cooperative_matrix = false;
  bool external_memory_host = false;
};

// What `device` offers; asks only for structs of listed extensions and of the device's version.
[[nodiscard]] OptionalFeatures query_optional_features(
    const InstanceTable& table, VkPhysicalDevice device, uint32_t api_version,
    const std::vector<VkExtensionProperties>& extensions);

// What a host enabled, read from what it gave to vkCreateDevice; nothing for null.
[[nodiscard]] OptionalFeatures enabled_features(const VkDeviceCreateInfo* info,
                                                uint32_t api_version);

// Turns off what `caps` claims beyond `on`.
void keep_usable(const OptionalFeatures& on, Caps& caps);

// The structs and extension names that enable what caps says is usable. Does not move: `head`
// points into it. vulkanMemoryModel and shaderFloat16 are the caller's, in its Vulkan 1.2 struct.
class OptionalChain {
 public:
  OptionalChain(const Caps& caps, void* tail);
  OptionalChain(const OptionalChain&) = delete;
  OptionalChain& operator=(const OptionalChain&) = delete;
  void* head = nullptr;
  std::vector<const char*> extensions;

 private:
  VkPhysicalDeviceSubgroupSizeControlFeatures size_control_{};
#ifdef VK_KHR_cooperative_matrix
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix_{};
#endif
#ifdef VK_EXT_shader_float8
  VkPhysicalDeviceShaderFloat8FeaturesEXT float8_{};
#endif
};

[[nodiscard]] bool has_extension(const std::vector<VkExtensionProperties>& extensions,
                                 std::string_view name);

}  // namespace hadal::vk
