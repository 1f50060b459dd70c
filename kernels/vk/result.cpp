#include "result.h"

#include <fmt/format.h>

namespace hadal::vk {

Status to_status(VkResult result, std::string_view what) {
  switch (result) {
    case VK_SUCCESS: return {};
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      return {Errc::kOutOfHostMemory, fmt::format("{}: VK_ERROR_OUT_OF_HOST_MEMORY", what)};
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
      return {Errc::kOutOfDeviceMemory, fmt::format("{}: VK_ERROR_OUT_OF_DEVICE_MEMORY", what)};
    case VK_ERROR_DEVICE_LOST:
      return {Errc::kDeviceLost, fmt::format("{}: VK_ERROR_DEVICE_LOST", what)};
    case VK_ERROR_LAYER_NOT_PRESENT:
      return {Errc::kUnsupported, fmt::format("{}: VK_ERROR_LAYER_NOT_PRESENT", what)};
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_FEATURE_NOT_PRESENT:
      return {Errc::kUnsupported, fmt::format("{}: extension or feature not present", what)};
    case VK_ERROR_INCOMPATIBLE_DRIVER:
      return {Errc::kNoDevice,
              fmt::format("{}: VK_ERROR_INCOMPATIBLE_DRIVER (no Vulkan driver was found)", what)};
    default:
      return {Errc::kInternal, fmt::format("{}: VkResult {}", what, static_cast<int>(result))};
  }
}

}  // namespace hadal::vk
