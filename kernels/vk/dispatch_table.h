// hadal's own table of Vulkan functions, one per device: the library neither links libvulkan nor
// uses a loader's globals, so that it can live in a host that owns several devices.
#pragma once

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#define HADAL_VK_INSTANCE_FUNCTIONS(X)      \
  X(DestroyInstance)                        \
  X(EnumeratePhysicalDevices)               \
  X(EnumerateDeviceExtensionProperties)     \
  X(GetPhysicalDeviceProperties)            \
  X(GetPhysicalDeviceProperties2)           \
  X(GetPhysicalDeviceFeatures2)             \
  X(GetPhysicalDeviceMemoryProperties)      \
  X(GetPhysicalDeviceMemoryProperties2)     \
  X(GetPhysicalDeviceQueueFamilyProperties) \
  X(CreateDevice)                           \
  X(GetDeviceProcAddr)

#define HADAL_VK_DEVICE_FUNCTIONS(X) \
  X(DestroyDevice)                   \
  X(GetDeviceQueue)                  \
  X(DeviceWaitIdle)                  \
  X(QueueSubmit)                     \
  X(CreateSemaphore)                 \
  X(DestroySemaphore)                \
  X(WaitSemaphores)                  \
  X(GetSemaphoreCounterValue)        \
  X(CreateCommandPool)               \
  X(DestroyCommandPool)              \
  X(ResetCommandPool)                \
  X(AllocateCommandBuffers)          \
  X(BeginCommandBuffer)              \
  X(EndCommandBuffer)                \
  X(CmdBindPipeline)                 \
  X(CmdPushConstants)                \
  X(CmdDispatch)                     \
  X(CmdDispatchIndirect)             \
  X(CmdPipelineBarrier)              \
  X(CmdCopyBuffer)                   \
  X(CmdFillBuffer)                   \
  X(CmdWriteTimestamp)               \
  X(CmdResetQueryPool)               \
  X(CreateQueryPool)                 \
  X(DestroyQueryPool)                \
  X(GetQueryPoolResults)             \
  X(CreateShaderModule)              \
  X(DestroyShaderModule)             \
  X(CreatePipelineLayout)            \
  X(DestroyPipelineLayout)           \
  X(CreateComputePipelines)          \
  X(DestroyPipeline)                 \
  X(CreatePipelineCache)             \
  X(DestroyPipelineCache)            \
  X(GetPipelineCacheData)            \
  X(CreateBuffer)                    \
  X(DestroyBuffer)                   \
  X(GetBufferMemoryRequirements)     \
  X(AllocateMemory)                  \
  X(FreeMemory)                      \
  X(BindBufferMemory)                \
  X(GetBufferDeviceAddress)

namespace hadal::vk {

struct InstanceTable {
#define HADAL_X(name) PFN_vk##name name = nullptr;
  HADAL_VK_INSTANCE_FUNCTIONS(HADAL_X)
#undef HADAL_X
  // Fills the table; false when a function is missing.
  [[nodiscard]] bool load(PFN_vkGetInstanceProcAddr get, VkInstance instance);
};

struct DeviceTable {
#define HADAL_X(name) PFN_vk##name name = nullptr;
  HADAL_VK_DEVICE_FUNCTIONS(HADAL_X)
#undef HADAL_X
  [[nodiscard]] bool load(PFN_vkGetDeviceProcAddr get, VkDevice device);
};

}  // namespace hadal::vk
