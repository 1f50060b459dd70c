// Loader and instance: opened once per Device or listing, closed with it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dispatch_table.h"
#include "hadal/caps.h"
#include "hadal/device.h"
#include "hadal/status.h"

namespace hadal::vk {

// What the validation layer said; shared with the debug callback.
struct ValidationLog {
  std::mutex mutex;
  std::atomic<uint32_t> count = 0;
  std::string first;
  LogFn log;
};

class Instance {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Instance>> create(bool validation, LogFn log);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  [[nodiscard]] Result<std::vector<VkPhysicalDevice>> physical_devices() const;

  PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
  VkInstance handle = VK_NULL_HANDLE;
  InstanceTable table;
  ValidationLog validation;

 private:
  Instance() = default;
  [[nodiscard]] Status open_loader();
  [[nodiscard]] Status create_instance(bool with_validation);
  void* library_ = nullptr;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
};

// Fills Caps from the queries of one physical device: optional features as if all offered were on.
// `max_api_version` is what the instance's owner speaks; 0: anything.
[[nodiscard]] Caps query_caps(const InstanceTable& table, PFN_vkGetInstanceProcAddr get,
                              VkInstance instance, VkPhysicalDevice device,
                              uint32_t max_api_version = 0);

}  // namespace hadal::vk
