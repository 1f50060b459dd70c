// What a host must, and may, enable before it makes the VkDevice that it lends (Device::borrow).
// Vulkan 1.2 and no extension are enough; optional features open faster paths. Allocates no Vulkan
// object; all functions are pure but for the driver's answers, and thread-safe.
#pragma once

#include <vulkan/vulkan_core.h>

#include <cstdint>
#include <vector>

#include "hadal/status.h"

namespace hadal {

// Whose device, and which version of Vulkan its host speaks.
struct DeviceQuery {
  PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
  VkInstance instance = VK_NULL_HANDLE;
  VkPhysicalDevice physical_device = VK_NULL_HANDLE;
  uint32_t api_version = 0;  // VkApplicationInfo::apiVersion; 0: Vulkan 1.2
};

// One feature bit. The texts are literals.
struct DeviceFeature {
  const char* name = nullptr;       // of the member, e.g. "bufferDeviceAddress"
  const char* structure = nullptr;  // of which structure, e.g. "VkPhysicalDeviceVulkan12Features"
  const char* extension = nullptr;  // to be enabled with it; null: core in the host's version
  const char* purpose = nullptr;    // what hadal does with it
  bool required = false;
  bool offered = false;  // the device has it, in a form that hadal uses
};

// Number of features that hadal looks at.
[[nodiscard]] uint32_t device_feature_count();

// Every feature that hadal looks at, required ones first, always all of them in the same order.
// Errors: kInvalidArgument for a null handle.
[[nodiscard]] Result<std::vector<DeviceFeature>> device_features(const DeviceQuery& query);

// The extensions of the optional features that are offered, each once.
[[nodiscard]] Result<std::vector<const char*>> device_extensions(const DeviceQuery& query);

// Sets, in the structures of `chain` (VkPhysicalDeviceFeatures2 or any other of a pNext chain), the
// bits of every feature that is offered; bits already set stay. A structure holds its own bits
// only: those of an optional feature without a structure in the chain stay off. Errors:
// kUnsupported for a device that lacks a required feature; kInvalidArgument for a required one
// without a structure. Both name it.
[[nodiscard]] Status enable_device_features(const DeviceQuery& query, void* chain);

}  // namespace hadal
