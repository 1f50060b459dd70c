// Device memory through VulkanMemoryAllocator, with hadal's function pointers.
#include <fmt/format.h>

#include "device_impl.h"
#include "hadal/buffer.h"
#include "hadal/device.h"

#define VMA_STATIC_VULKAN_FUNCTIONS 0
#define VMA_DYNAMIC_VULKAN_FUNCTIONS 1
#define VMA_VULKAN_VERSION 1002000
#define VMA_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <vk_mem_alloc.h>
#pragma GCC diagnostic pop

namespace hadal {
namespace {

// Whatever a kernel, the recorder or a test does with a buffer.
constexpr VkBufferUsageFlags kBufferUsage =
    VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
    VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT;

// Any queue may use any buffer, and knows it by its address only: nobody could hand one over.
void share(VkBufferCreateInfo& info, const std::vector<uint32_t>& families) {
  if (families.empty()) return;
  info.sharingMode = VK_SHARING_MODE_CONCURRENT;
  info.queueFamilyIndexCount = uint32_t(families.size());
  info.pQueueFamilyIndices = families.data();
}

}  // namespace

struct Buffer::Impl {
  vk::DeviceImpl* device = nullptr;
  VkBuffer handle = VK_NULL_HANDLE;
  VmaAllocation allocation = VK_NULL_HANDLE;
  uint64_t bytes = 0;
  VkDeviceMemory imported = VK_NULL_HANDLE;  // instead of an allocation
  ~Impl() {
    if (!device) return;  // borrowed
    if (!allocation) {    // imported, or a half-made import
      device->table.DestroyBuffer(device->device, handle, device->callbacks());
      device->table.FreeMemory(device->device, imported, device->callbacks());
      return;
    }
    vmaDestroyBuffer(device->allocator, handle, allocation);
    device->allocated_bytes -= bytes;
  }
};

Buffer::Buffer() noexcept = default;
Buffer::Buffer(Buffer&& other) noexcept {
  *this = std::move(other);
}
Buffer& Buffer::operator=(Buffer&& other) noexcept {
  impl_ = std::move(other.impl_);
  address_ = std::exchange(other.address_, 0);
  bytes_ = std::exchange(other.bytes_, 0);
  mapped_ = std::exchange(other.mapped_, nullptr);
  return *this;
}
Buffer::~Buffer() = default;

Buffer Buffer::borrow(VkBuffer_T* handle, DeviceAddress address, uint64_t bytes) {
  Buffer buffer;
  buffer.impl_ = std::make_unique<Impl>();
  buffer.impl_->handle = handle;
  buffer.address_ = address, buffer.bytes_ = bytes;
  return buffer;
}

Result<Buffer> Device::allocate(uint64_t bytes, MemoryKind kind) {
  if (bytes == 0)
    return Status(Errc::kInvalidArgument, "allocate: bytes must be at least 1, got 0");
  if (!impl_->allocator) {
    return Status(Errc::kUnsupported, "allocate: the device was borrowed without a queue");
  }
  const std::vector<uint32_t> families = impl_->queues.sharing_families();
  VkBufferCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  // Lavapipe leaves a loop after one more turn with every lane masked off, and its uniform loads
  // look at no mask: they read a step past the end of a row, and past the last one of a buffer.
  // No kernel's loads do in the tests, whose buffers end at inaccessible pages; this is for a case
  // that they miss.
  const uint64_t padding = caps().is_cpu ? 1024 : 0;
  info.size = bytes + padding;
  info.usage = kBufferUsage;
  share(info, families);
  VmaAllocationCreateInfo create{};
  create.usage = VMA_MEMORY_USAGE_AUTO;
  create.flags = VMA_ALLOCATION_CREATE_MAPPED_BIT;
  create.requiredFlags = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  switch (kind) {
    case MemoryKind::kDevice:
      // Mapped only where it costs nothing: memory that is device-local and host-visible.
      create.requiredFlags = 0;
      create.usage = VMA_MEMORY_USAGE_AUTO_PREFER_DEVICE;
      create.flags |= VMA_ALLOCATION_CREATE_HOST_ACCESS_SEQUENTIAL_WRITE_BIT |
                      VMA_ALLOCATION_CREATE_HOST_ACCESS_ALLOW_TRANSFER_INSTEAD_BIT;
      break;
    case MemoryKind::kUpload:
      create.flags |= VMA_ALLOCATION_CREATE_HOST_ACCESS_SEQUENTIAL_WRITE_BIT;
      break;
    case MemoryKind::kReadback: create.flags |= VMA_ALLOCATION_CREATE_HOST_ACCESS_RANDOM_BIT; break;
  }
  VkBuffer handle = VK_NULL_HANDLE;
  VmaAllocation allocation = VK_NULL_HANDLE;
  VmaAllocationInfo allocated{};
  constexpr VkDeviceSize kAlignment = 256;  // contract of Buffer; kernels rely on 16
  const VkResult result = vmaCreateBufferWithAlignment(impl_->allocator, &info, &create, kAlignment,
                                                       &handle, &allocation, &allocated);
  if (result != VK_SUCCESS) {
    return vk::to_status(result, fmt::format("allocate: {} bytes, {} in use of {}", bytes,
                                             allocated_bytes(), caps().device_heap_bytes));
  }
  VkMemoryPropertyFlags flags = 0;
  vmaGetAllocationMemoryProperties(impl_->allocator, allocation, &flags);

  Buffer buffer;
  buffer.impl_.reset(new Buffer::Impl{impl_.get(), handle, allocation, bytes});
  buffer.bytes_ = bytes;
  if (flags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT) buffer.mapped_ = allocated.pMappedData;
  VkBufferDeviceAddressInfo address{};
  address.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
  address.buffer = handle;
  buffer.address_ = impl_->table.GetBufferDeviceAddress(impl_->device, &address);
  const uint64_t now = impl_->allocated_bytes += bytes;
  uint64_t peak = impl_->peak_allocated_bytes;
  while (now > peak && !impl_->peak_allocated_bytes.compare_exchange_weak(peak, now)) {
  }
  return buffer;
}

namespace {

// Index of a memory type in `bits`, or -1.
int first_memory_type(uint32_t bits) {
  for (int i = 0; i < 32; ++i) {
    if (bits >> i & 1) return i;
  }
  return -1;
}

}  // namespace

Result<Buffer> Device::import_host(std::span<const std::byte> bytes) {
  if (!impl_->allocator) {
    return Status(Errc::kUnsupported, "import_host: the device was borrowed without a queue");
  }
  const vk::DeviceTable& table = impl_->table;
  const auto properties_of = reinterpret_cast<PFN_vkGetMemoryHostPointerPropertiesEXT>(
      impl_->instance_table.GetDeviceProcAddr(impl_->device,
                                              "vkGetMemoryHostPointerPropertiesEXT"));
  const uint64_t alignment = caps().host_import_alignment;
  if (alignment == 0 || !properties_of) {
    return Status(Errc::kUnsupported, "import_host: the device has no VK_EXT_external_memory_host");
  }
  auto* pointer = const_cast<std::byte*>(bytes.data());  // Vulkan's type; nothing writes through it
  if (reinterpret_cast<uintptr_t>(pointer) % alignment || bytes.empty()) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("import_host: bytes must begin at a multiple of {} and not be empty",
                              alignment));
  }
  constexpr auto kHandle = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
  const uint64_t size = (bytes.size() + alignment - 1) / alignment * alignment;
  VkMemoryHostPointerPropertiesEXT host{};
  host.sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT;
  if (properties_of(impl_->device, kHandle, pointer, &host) != VK_SUCCESS) {
    return Status(Errc::kUnsupported, "import_host: the driver does not take this memory");
  }
  auto owner = std::unique_ptr<Buffer::Impl>(new Buffer::Impl{impl_.get()});
  VkExternalMemoryBufferCreateInfo external{};
  external.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO;
  external.handleTypes = kHandle;
  const std::vector<uint32_t> families = impl_->queues.sharing_families();
  VkBufferCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.pNext = &external;
  info.size = size;
  info.usage = kBufferUsage;
  share(info, families);
  HADAL_TRY(
      vk::to_status(table.CreateBuffer(impl_->device, &info, impl_->callbacks(), &owner->handle),
                    "import_host: vkCreateBuffer"));
  VkMemoryRequirements needs{};
  table.GetBufferMemoryRequirements(impl_->device, owner->handle, &needs);
  const int type = first_memory_type(needs.memoryTypeBits & host.memoryTypeBits);
  VkImportMemoryHostPointerInfoEXT import{};
  import.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT;
  import.handleType = kHandle;
  import.pHostPointer = pointer;
  VkMemoryAllocateFlagsInfo flags{};
  flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO;
  flags.pNext = &import;
  flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
  VkMemoryAllocateInfo allocate{};
  allocate.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocate.pNext = &flags;
  allocate.allocationSize = size;
  allocate.memoryTypeIndex = uint32_t(type < 0 ? 0 : type);
  if (type < 0 || needs.size > size ||
      table.AllocateMemory(impl_->device, &allocate, impl_->callbacks(), &owner->imported) !=
          VK_SUCCESS) {
    return Status(Errc::kUnsupported, "import_host: the driver does not take this memory");
  }
  HADAL_TRY(vk::to_status(table.BindBufferMemory(impl_->device, owner->handle, owner->imported, 0),
                          "import_host: vkBindBufferMemory"));
  VkBufferDeviceAddressInfo address{};
  address.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
  address.buffer = owner->handle;
  Buffer buffer;
  buffer.bytes_ = size;
  buffer.address_ = table.GetBufferDeviceAddress(impl_->device, &address);
  buffer.impl_ = std::move(owner);
  return buffer;
}

namespace vk {

VkBuffer_T* buffer_handle(const Buffer& buffer) noexcept {
  return buffer.impl_->handle;
}

Status create_allocator(DeviceImpl& impl) {
  VmaVulkanFunctions functions{};
  functions.vkGetInstanceProcAddr = impl.get_instance_proc_addr;
  functions.vkGetDeviceProcAddr = impl.instance_table.GetDeviceProcAddr;
  VmaAllocatorCreateInfo info{};
  info.flags = VMA_ALLOCATOR_CREATE_BUFFER_DEVICE_ADDRESS_BIT;
  info.physicalDevice = impl.physical;
  info.device = impl.device;
  info.instance = impl.instance_handle;
  info.pVulkanFunctions = &functions;
  info.pAllocationCallbacks = impl.callbacks();
  info.vulkanApiVersion = VK_API_VERSION_1_2;
  return to_status(vmaCreateAllocator(&info, &impl.allocator), "device: vmaCreateAllocator");
}

void destroy_allocator(DeviceImpl& impl) {
  if (impl.allocator) vmaDestroyAllocator(impl.allocator);
  impl.allocator = nullptr;
}

}  // namespace vk

}  // namespace hadal
