#include "support/vulkan_faults.h"

#include <atomic>
#include <cassert>

#include "vk/device_impl.h"

namespace hadal::test {
namespace {

// Vulkan's functions carry no context of ours.
struct State {
  vk::DeviceTable real;
  VkResult result = VK_SUCCESS;
  uint32_t after = 0, count = 0;
  std::atomic<uint32_t> calls = 0, failed = 0, counter_reads = 0;
  bool reads_fail = false;
  bool active = false;

  [[nodiscard]] bool fails() {
    const uint32_t call = calls++;
    if (call < after || call - after >= count) return false;
    ++failed;
    return true;
  }
};
State g_state;

VkResult queue_submit(VkQueue queue, uint32_t count, const VkSubmitInfo* infos, VkFence fence) {
  return g_state.fails() ? g_state.result : g_state.real.QueueSubmit(queue, count, infos, fence);
}
VkResult wait_semaphores(VkDevice device, const VkSemaphoreWaitInfo* info, uint64_t timeout) {
  return g_state.fails() ? g_state.result : g_state.real.WaitSemaphores(device, info, timeout);
}
VkResult counter_value(VkDevice device, VkSemaphore semaphore, uint64_t* value) {
  ++g_state.counter_reads;
  return g_state.reads_fail ? g_state.result
                            : g_state.real.GetSemaphoreCounterValue(device, semaphore, value);
}
VkResult end_command_buffer(VkCommandBuffer buffer) {
  return g_state.fails() ? g_state.result : g_state.real.EndCommandBuffer(buffer);
}
VkResult create_pipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                          const VkComputePipelineCreateInfo* infos,
                          const VkAllocationCallbacks* allocator, VkPipeline* pipelines) {
  if (g_state.fails()) return g_state.result;
  return g_state.real.CreateComputePipelines(device, cache, count, infos, allocator, pipelines);
}

}  // namespace

VulkanFault::VulkanFault(Device& device, Call call, VkResult result, uint32_t after, uint32_t count)
    : device_(&device) {
  assert(!g_state.active);
  vk::DeviceTable& table = device.impl().table;
  g_state.real = table, g_state.result = result, g_state.after = after, g_state.count = count;
  g_state.calls = g_state.failed = g_state.counter_reads = 0, g_state.active = true;
  g_state.reads_fail = call == Call::kEveryWait;
  table.GetSemaphoreCounterValue = counter_value;
  switch (call) {
    case Call::kQueueSubmit: table.QueueSubmit = queue_submit; break;
    case Call::kWaitSemaphores:
    case Call::kEveryWait: table.WaitSemaphores = wait_semaphores; break;
    case Call::kEndCommandBuffer: table.EndCommandBuffer = end_command_buffer; break;
    case Call::kCreateComputePipelines: table.CreateComputePipelines = create_pipelines; break;
  }
}

VulkanFault::~VulkanFault() {
  // A wait that failed left work under way.
  (void)g_state.real.DeviceWaitIdle(device_->impl().device);
  device_->impl().table = g_state.real;
  g_state.active = false;
}

uint32_t VulkanFault::counter_reads() const {
  return g_state.counter_reads;
}

uint32_t VulkanFault::calls() const {
  return g_state.calls;
}

uint32_t VulkanFault::failed() const {
  return g_state.failed;
}

}  // namespace hadal::test
