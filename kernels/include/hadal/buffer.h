// Device memory: an owning Buffer, and the plain address ranges that kernels take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

struct VkBuffer_T;

namespace hadal {

class Buffer;
namespace vk {
[[nodiscard]] VkBuffer_T* buffer_handle(const Buffer& buffer) noexcept;  // the VkBuffer inside
}

// A GPU virtual address (VkDeviceAddress). 0 means "absent" where an argument is optional.
using DeviceAddress = uint64_t;

// Bytes [address, address + bytes) on the device, as a kernel declares that it reads or writes
// them.
struct DeviceRange {
  DeviceAddress address = 0;
  uint64_t bytes = 0;
};

enum class MemoryKind {
  kDevice,   // fastest for shaders; mapped only where the driver's memory is (CPU devices, ReBAR)
  kUpload,   // host-visible, written by the host, read by the device
  kReadback  // host-visible and cached, written by the device, read by the host
};

// An allocation with a device address, aligned to at least 256 bytes. Movable; frees itself; must
// not outlive its Device nor the last submission that uses it.
class Buffer {
 public:
  Buffer() noexcept;
  Buffer(Buffer&&) noexcept;
  Buffer& operator=(Buffer&&) noexcept;
  ~Buffer();

  // A host's buffer of which the first `bytes` may be used, with its device address: for indirect
  // arguments. The host keeps it alive.
  [[nodiscard]] static Buffer borrow(VkBuffer_T* handle, DeviceAddress address, uint64_t bytes);

  [[nodiscard]] DeviceAddress address() const noexcept { return address_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] explicit operator bool() const noexcept { return address_ != 0; }
  // Host view of the memory (coherent), empty where it is not mapped.
  [[nodiscard]] std::span<std::byte> mapped() const noexcept {
    return {static_cast<std::byte*>(mapped_), mapped_ ? bytes_ : 0};
  }

 private:
  friend class Device;
  friend VkBuffer_T* vk::buffer_handle(const Buffer& buffer) noexcept;
  struct Impl;
  std::unique_ptr<Impl> impl_;
  DeviceAddress address_ = 0;
  uint64_t bytes_ = 0;
  void* mapped_ = nullptr;
};

}  // namespace hadal
