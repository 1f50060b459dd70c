// A Vulkan device, owned or borrowed, with what kernels need of it: capabilities, pipelines,
// memory, queues to submit to and to wait for. Kernels themselves only record (recorder.h).
#pragma once

#include <vulkan/vulkan_core.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"

namespace hadal {

class Recorder;
namespace vk {
struct DeviceImpl;
}

enum class LogLevel { kInfo, kWarning, kError };
using LogFn = std::function<void(LogLevel, const std::string&)>;

struct DeviceOptions {
  // Which device: empty = the best (discrete, then integrated, then CPU); a number = index in
  // list_devices(); otherwise a part of the device's name, any case.
  std::string select;
  bool validation = false;  // enable VK_LAYER_KHRONOS_validation; an error when it is absent
  LogFn log;                // silent when empty
  std::filesystem::path cache_dir;  // pipeline cache between runs; empty = none
};

// Tables that the fastest paths of CPU drivers read. A Device with a queue makes its own.
inline constexpr uint64_t kDeviceConstantsBytes = 2048;
inline constexpr uint64_t kDeviceConstantsAlignment = 16;
void write_device_constants(std::span<std::byte, kDeviceConstantsBytes> bytes);

// Handles of a host that owns its Vulkan objects. The host must have enabled the required features
// (requirements.h) and keeps everything alive longer than the Device. Optional features are used
// where create_info enables them: Vulkan cannot be asked which are on. A host that enables
// vulkanMemoryModel must enable vulkanMemoryModelDeviceScope, too. Work that uses the Device's
// pipelines or buffers has completed before the Device goes: its destructor does not wait.
struct BorrowedDevice {
  PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
  VkInstance instance = VK_NULL_HANDLE;
  VkPhysicalDevice physical_device = VK_NULL_HANDLE;
  VkDevice device = VK_NULL_HANDLE;
  uint32_t queue_family = 0;
  // Used by submit(), run(), upload() and download() only, each for a submission; the host's own
  // submissions to it must not run at the same time as these. Nothing waits for the queue or the
  // device, only for what hadal has submitted. Null: a Device that records and
  // nothing else; it allocates no device memory, and allocate(), submit() and what needs them are
  // kUnsupported.
  VkQueue queue = VK_NULL_HANDLE;
  // Called around each use of the queue, on the thread that submits, for a host that submits to it
  // from other threads. A host that holds the lock calls nothing of the Device's. Not ok: the
  // submission fails with it. Null: the host keeps its own submissions apart.
  std::function<Status()> lock_queue;
  std::function<void()> unlock_queue;  // does not throw
  // What vkCreateDevice was given, read by borrow() only; null: no optional feature is used, and
  // the required ones are taken to be on.
  const VkDeviceCreateInfo* create_info = nullptr;
  // Copied; passed to every call that creates or destroys a Vulkan object. Null: the driver's.
  const VkAllocationCallbacks* allocation_callbacks = nullptr;
  // Where pipelines are compiled to; must allow use by several threads. Null: a private one.
  VkPipelineCache pipeline_cache = VK_NULL_HANDLE;
  // kDeviceConstantsBytes of device memory that hold write_device_constants(); constant as long as
  // the Device lives, a multiple of kDeviceConstantsAlignment. 0: without a queue, the paths of CPU
  // drivers that decode e4m3 by table are not taken (Caps::device_constants).
  DeviceAddress constants = 0;
};

// Capabilities of every device that the loader shows, in the loader's order, usable or not.
// Errors: kNoDevice when there is no loader or no device.
[[nodiscard]] Result<std::vector<Caps>> list_devices();

// Empty when `caps` has all that hadal requires, else the name of the first thing missing.
[[nodiscard]] std::string missing_requirement(const Caps& caps);

// A submission to wait for. Value 0 is none: the wait returns at once.
struct Ticket {
  uint32_t queue = 0;
  uint64_t value = 0;
};

class Device {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Device>> create(const DeviceOptions& options = {});
  [[nodiscard]] static Result<std::unique_ptr<Device>> borrow(const BorrowedDevice& handles,
                                                              const DeviceOptions& options = {});
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] const Caps& caps() const noexcept;

  // Allocates `bytes` (at least 1) of the kind. Errors: kOutOfDeviceMemory with the numbers.
  // Thread-safe.
  [[nodiscard]] Result<Buffer> allocate(uint64_t bytes, MemoryKind kind = MemoryKind::kDevice);

  // Lets the device read host memory in place (VK_EXT_external_memory_host): `bytes` begins at a
  // multiple of caps().host_import_alignment (so does the address), is rounded up to one at its
  // end, and must stay readable as long as the Buffer lives. Errors: kUnsupported where the device
  // or the driver cannot (a caller then copies). The host must not change the bytes while the
  // device reads.
  [[nodiscard]] Result<Buffer> import_host(std::span<const std::byte> bytes);

  // Copies host bytes into a buffer / back, through staging where the memory is not mapped. Waits.
  [[nodiscard]] Status upload(const Buffer& dst, uint64_t dst_offset,
                              std::span<const std::byte> src);
  [[nodiscard]] Status download(const Buffer& src, uint64_t src_offset, std::span<std::byte> dst);

  // Queues that recorders may go to (RecorderOptions::queue): 2 where a compute family has several,
  // or where there is another compute family; a borrowed device has the one that it was given.
  [[nodiscard]] uint32_t queue_count() const noexcept;

  // Submits an ended Recorder to its queue and returns at once. Until wait() has returned, the
  // recorder must stay, may not be reset or submitted again, and what it reads may not change; then
  // it may be submitted again as it is. Submissions of one queue run one after another, those of
  // different queues at the same time: only a wait() between orders these. Errors: kDeviceLost,
  // kOutOfDeviceMemory; then nothing was submitted. Thread-safe.
  [[nodiscard]] Result<Ticket> submit(Recorder& recorder);
  // Waits until the submission and those before it in its queue are done; what they wrote may then
  // be read on the host and by later submissions to any queue. Errors: kDeviceLost. Thread-safe.
  [[nodiscard]] Status wait(const Ticket& ticket);
  // submit() and wait().
  [[nodiscard]] Status run(Recorder& recorder);

  // Bytes allocated now and at most so far through allocate().
  [[nodiscard]] uint64_t allocated_bytes() const noexcept;
  [[nodiscard]] uint64_t peak_allocated_bytes() const noexcept;

  // Writes the pipeline cache to DeviceOptions::cache_dir (also done by the destructor). No-op
  // without.
  [[nodiscard]] Status save_pipeline_cache() const;

  // Number of validation messages so far (warnings and errors), and the first one.
  [[nodiscard]] uint32_t validation_messages() const noexcept;
  [[nodiscard]] std::string first_validation_message() const;

  // Private plumbing, for hadal's own translation units.
  [[nodiscard]] vk::DeviceImpl& impl() noexcept { return *impl_; }

 private:
  explicit Device(std::unique_ptr<vk::DeviceImpl> impl);
  std::unique_ptr<vk::DeviceImpl> impl_;
};

}  // namespace hadal
