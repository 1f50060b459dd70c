#include "queues.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "result.h"

namespace hadal::vk {
namespace {

// Holds the host's lock of a borrowed queue.
class HostLock {
 public:
  HostLock(const std::function<Status()>& lock, const std::function<void()>& unlock)
      : status_(lock ? lock() : Status()), unlock_(unlock) {}
  ~HostLock() {
    if (status_.ok() && unlock_) unlock_();
  }
  HostLock(const HostLock&) = delete;
  HostLock& operator=(const HostLock&) = delete;
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  Status status_;
  const std::function<void()>& unlock_;
};

}  // namespace

bool Queues::choose(const InstanceTable& table, VkPhysicalDevice physical) {
  uint32_t families_count = 0;
  table.GetPhysicalDeviceQueueFamilyProperties(physical, &families_count, nullptr);
  std::vector<VkQueueFamilyProperties> families(families_count);
  table.GetPhysicalDeviceQueueFamilyProperties(physical, &families_count, families.data());
  for (uint32_t family = 0; family < families_count; ++family) {
    if (!(families[family].queueFlags & VK_QUEUE_COMPUTE_BIT)) continue;
    for (uint32_t index = 0; index < families[family].queueCount && count_ < kMost; ++index) {
      Queue& queue = queues_[count_++];
      queue.family = family, queue.index = index;
      queue.has_timestamps = families[family].timestampValidBits != 0;
    }
  }
  return count_ > 0;
}

std::vector<VkDeviceQueueCreateInfo> Queues::create_infos() const {
  static constexpr std::array<float, kMost> kPriorities{1.0f, 1.0f};
  std::vector<VkDeviceQueueCreateInfo> infos;
  for (uint32_t i = 0; i < count_; ++i) {
    if (!infos.empty() && infos.back().queueFamilyIndex == queues_[i].family) {
      ++infos.back().queueCount;
      continue;
    }
    VkDeviceQueueCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    info.queueFamilyIndex = queues_[i].family;
    info.queueCount = 1;
    info.pQueuePriorities = kPriorities.data();
    infos.push_back(info);
  }
  return infos;
}

void Queues::borrow(uint32_t family, VkQueue handle, std::function<Status()> lock,
                    std::function<void()> unlock) {
  queues_[0].family = family, queues_[0].handle = handle;
  count_ = 1;
  lock_ = std::move(lock), unlock_ = std::move(unlock);
}

Status Queues::open(const DeviceTable& table, VkDevice device,
                    const VkAllocationCallbacks* callbacks) {
  table_ = &table, device_ = device, callbacks_ = callbacks;
  for (uint32_t i = 0; i < count_; ++i) {
    Queue& queue = queues_[i];
    if (!queue.handle) table.GetDeviceQueue(device, queue.family, queue.index, &queue.handle);
    VkSemaphoreTypeCreateInfo type{};
    type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
    type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
    VkSemaphoreCreateInfo semaphore{};
    semaphore.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
    semaphore.pNext = &type;
    HADAL_TRY(to_status(table.CreateSemaphore(device, &semaphore, callbacks, &queue.timeline),
                        "device: vkCreateSemaphore"));
  }
  return {};
}

void Queues::close() {
  for (Queue& queue : queues_) {
    if (queue.timeline) table_->DestroySemaphore(device_, queue.timeline, callbacks_);
    queue.timeline = VK_NULL_HANDLE;
  }
}

std::vector<uint32_t> Queues::sharing_families() const {
  if (count_ < 2 || queues_[0].family == queues_[1].family) return {};
  return {queues_[0].family, queues_[1].family};
}

Result<Ticket> Queues::submit(uint32_t index, VkCommandBuffer command_buffer) {
  Queue& queue = queues_[index];
  const std::scoped_lock lock(queue.mutex);
  const Ticket ticket{index, queue.submitted + 1};
  VkTimelineSemaphoreSubmitInfo values{};
  values.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
  values.signalSemaphoreValueCount = 1;
  values.pSignalSemaphoreValues = &ticket.value;
  VkSubmitInfo submit{};
  submit.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  submit.pNext = &values;
  submit.commandBufferCount = 1;
  submit.pCommandBuffers = &command_buffer;
  submit.signalSemaphoreCount = 1;
  submit.pSignalSemaphores = &queue.timeline;
  const HostLock host(lock_, unlock_);
  HADAL_TRY(host.status());
  HADAL_TRY(to_status(table_->QueueSubmit(queue.handle, 1, &submit, VK_NULL_HANDLE),
                      "run: vkQueueSubmit"));
  queue.submitted = ticket.value;
  return ticket;
}

Status Queues::wait(const Ticket& ticket) {
  VkSemaphoreWaitInfo wait{};
  wait.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
  wait.semaphoreCount = 1;
  wait.pSemaphores = &queues_[ticket.queue].timeline;
  wait.pValues = &ticket.value;
  const Status waited =
      to_status(table_->WaitSemaphores(device_, &wait, UINT64_MAX), "run: vkWaitSemaphores");
  if (waited.ok() || waited.code() == Errc::kDeviceLost) return waited;
  // The work is still under way: nobody may touch its memory or its command buffer before its end.
  // The timeline is hadal's own and may be read by any thread; vkDeviceWaitIdle would ask for every
  // queue of the device, and a host's others are not hadal's to lock.
  for (;;) {
    uint64_t reached = 0;
    const VkResult read =
        table_->GetSemaphoreCounterValue(device_, queues_[ticket.queue].timeline, &reached);
    if (read != VK_SUCCESS) {
      return {Errc::kDeviceLost, fmt::format("{}, then vkGetSemaphoreCounterValue: VkResult {}",
                                             waited.message(), static_cast<int>(read))};
    }
    if (reached >= ticket.value) return waited;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

}  // namespace hadal::vk
