// Makes a Vulkan call fail: for its lifetime it replaces an entry of a device's function table,
// which every call of the library goes through (VulkanMemoryAllocator's own do not).
#pragma once

#include <vulkan/vulkan_core.h>

#include <cstdint>

#include "hadal/device.h"

namespace hadal::test {

class VulkanFault {
 public:
  enum class Call {
    kQueueSubmit,
    kWaitSemaphores,
    kEveryWait,  // vkGetSemaphoreCounterValue, too
    kEndCommandBuffer,
    kCreateComputePipelines,
  };
  // The first `after` calls pass, the next `count` return `result` without reaching the driver, the
  // rest pass. One at a time in a process.
  VulkanFault(Device& device, Call call, VkResult result, uint32_t after = 0,
              uint32_t count = UINT32_MAX);
  ~VulkanFault();
  VulkanFault(const VulkanFault&) = delete;
  VulkanFault& operator=(const VulkanFault&) = delete;

  // Calls so far, and those that failed.
  [[nodiscard]] uint32_t calls() const;
  [[nodiscard]] uint32_t failed() const;
  // Calls of vkGetSemaphoreCounterValue so far.
  [[nodiscard]] uint32_t counter_reads() const;

 private:
  Device* device_;
};

}  // namespace hadal::test
