#include "support/pipeline_runs.h"

#include <cassert>
#include <map>
#include <mutex>

#include "vk/device_impl.h"

namespace hadal::test {
namespace {

// Vulkan's functions carry no context of ours.
struct State {
  vk::DeviceTable real;
  std::mutex mutex;
  std::map<VkCommandBuffer, std::set<VkPipeline>> bound;
  std::set<VkPipeline> run;
  bool active = false;
};
State g_state;

VkResult begin_command_buffer(VkCommandBuffer buffer, const VkCommandBufferBeginInfo* info) {
  {
    std::scoped_lock lock(g_state.mutex);
    g_state.bound[buffer].clear();
  }
  return g_state.real.BeginCommandBuffer(buffer, info);
}
void bind_pipeline(VkCommandBuffer buffer, VkPipelineBindPoint point, VkPipeline pipeline) {
  {
    std::scoped_lock lock(g_state.mutex);
    g_state.bound[buffer].insert(pipeline);
  }
  g_state.real.CmdBindPipeline(buffer, point, pipeline);
}
VkResult queue_submit(VkQueue queue, uint32_t count, const VkSubmitInfo* infos, VkFence fence) {
  {
    std::scoped_lock lock(g_state.mutex);
    for (uint32_t i = 0; i < count; ++i) {
      for (uint32_t k = 0; k < infos[i].commandBufferCount; ++k) {
        g_state.run.merge(std::set(g_state.bound[infos[i].pCommandBuffers[k]]));
      }
    }
  }
  return g_state.real.QueueSubmit(queue, count, infos, fence);
}

}  // namespace

PipelineRuns::PipelineRuns(Device& device) : device_(&device) {
  assert(!g_state.active);
  vk::DeviceTable& table = device.impl().table;
  g_state.real = table, g_state.active = true;
  g_state.bound.clear(), g_state.run.clear();
  table.BeginCommandBuffer = begin_command_buffer;
  table.CmdBindPipeline = bind_pipeline;
  table.QueueSubmit = queue_submit;
}

PipelineRuns::~PipelineRuns() {
  device_->impl().table = g_state.real;
  g_state.active = false;
}

std::set<VkPipeline> PipelineRuns::pipelines() const {
  std::scoped_lock lock(g_state.mutex);
  return g_state.run;
}

}  // namespace hadal::test
