// The queues that a device submits to, each with the timeline that counts its submissions. Private.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "dispatch_table.h"
#include "hadal/device.h"
#include "hadal/status.h"

namespace hadal::vk {

struct Queue {
  uint32_t family = 0;
  uint32_t index = 0;  // in the family
  VkQueue handle = VK_NULL_HANDLE;
  bool has_timestamps = true;
  VkSemaphore timeline = VK_NULL_HANDLE;
  std::mutex mutex;        // of what follows: values are signalled in the order of submission
  uint64_t submitted = 0;  // the last submission's value
};

class Queues {
 public:
  static constexpr uint32_t kMost = 2;  // decode's and prefill's

  // Before the device: the first compute family's first queue, and a second one of the family where
  // it has several, or of the next compute family. False when there is no compute queue.
  [[nodiscard]] bool choose(const InstanceTable& table, VkPhysicalDevice physical);
  // What vkCreateDevice asks of each queue family.
  [[nodiscard]] std::vector<VkDeviceQueueCreateInfo> create_infos() const;
  // Instead of these two: a host's queue, with its locks (BorrowedDevice), which may be null.
  void borrow(uint32_t family, VkQueue handle, std::function<Status()> lock,
              std::function<void()> unlock);
  // `callbacks` may be null, and live as long as this.
  [[nodiscard]] Status open(const DeviceTable& table, VkDevice device,
                            const VkAllocationCallbacks* callbacks);
  void close();

  [[nodiscard]] uint32_t count() const { return count_; }
  [[nodiscard]] const Queue& operator[](uint32_t queue) const { return queues_[queue]; }
  // The families that share buffers; empty when it is one.
  [[nodiscard]] std::vector<uint32_t> sharing_families() const;

  // Both thread-safe.
  [[nodiscard]] Result<Ticket> submit(uint32_t queue, VkCommandBuffer command_buffer);
  [[nodiscard]] Status wait(const Ticket& ticket);

 private:
  const DeviceTable* table_ = nullptr;
  VkDevice device_ = VK_NULL_HANDLE;
  const VkAllocationCallbacks* callbacks_ = nullptr;
  std::array<Queue, kMost> queues_;
  uint32_t count_ = 0;
  std::function<Status()> lock_;
  std::function<void()> unlock_;
};

}  // namespace hadal::vk
