// What is behind hadal::Device.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dispatch_table.h"
#include "hadal/buffer.h"
#include "hadal/device.h"
#include "instance.h"
#include "once_map.h"
#include "pipeline.h"
#include "queues.h"
#include "result.h"

struct VmaAllocator_T;

namespace hadal::vk {

struct DeviceImpl {
  DeviceImpl() = default;
  ~DeviceImpl();
  DeviceImpl(const DeviceImpl&) = delete;
  DeviceImpl& operator=(const DeviceImpl&) = delete;

  std::unique_ptr<Instance> instance;  // null when borrowed
  bool owns_device = false;
  PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
  VkInstance instance_handle = VK_NULL_HANDLE;
  InstanceTable instance_table;
  VkPhysicalDevice physical = VK_NULL_HANDLE;
  VkDevice device = VK_NULL_HANDLE;
  DeviceTable table;
  Queues queues;  // none: records only, no allocator, no timeline
  std::optional<VkAllocationCallbacks> host_callbacks;
  [[nodiscard]] const VkAllocationCallbacks* callbacks() const {
    return host_callbacks ? &*host_callbacks : nullptr;
  }
  Caps caps;
  LogFn log;
  ValidationLog* validation = nullptr;

  VmaAllocator_T* allocator = nullptr;
  std::atomic<uint64_t> allocated_bytes = 0;
  std::atomic<uint64_t> peak_allocated_bytes = 0;

  // Pipelines by module and constants, made once; see pipeline.h.
  OnceMap<PipelineKey, Pipeline> pipelines;
  VkPipelineCache pipeline_cache = VK_NULL_HANDLE;
  bool owns_pipeline_cache = true;
  std::filesystem::path pipeline_cache_file;

  // See e4m3_table.h.
  std::mutex e4m3_table_mutex;
  Buffer e4m3_table;
  DeviceAddress constants = 0;  // a host's memory instead

  // After `device` is set: function table, queues, allocator, timelines, pipeline cache.
  [[nodiscard]] Status finish_setup(const DeviceOptions& options);
  [[nodiscard]] Status create_pipeline_cache(const DeviceOptions& options);
};

// memory.cpp
[[nodiscard]] Status create_allocator(DeviceImpl& impl);
void destroy_allocator(DeviceImpl& impl);

}  // namespace hadal::vk
