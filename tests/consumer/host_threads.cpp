// A host with an allocator of its own and two queues (one where the device has no second): two
// threads plan and record at once with the same context, each on its command pool and queue, into
// suballocations of one device memory object. Same input, same bits, on both.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "vulkan_host.h"

namespace {

constexpr uint32_t kRows = 24, kN = 512, kRounds = 8;

// The host's memory for the driver's objects: knows the size of each block, fails on a double free.
class HostAllocator {
 public:
  HostAllocator() {
    callbacks.pUserData = this;
    callbacks.pfnAllocation = [](void* self, size_t size, size_t alignment,
                                 VkSystemAllocationScope) {
      return static_cast<HostAllocator*>(self)->allocate(size, alignment);
    };
    callbacks.pfnReallocation = [](void* self, void* old, size_t size, size_t alignment,
                                   VkSystemAllocationScope) {
      return static_cast<HostAllocator*>(self)->reallocate(old, size, alignment);
    };
    callbacks.pfnFree = [](void* self, void* memory) {
      static_cast<HostAllocator*>(self)->release(memory);
    };
  }
  VkAllocationCallbacks callbacks{};
  size_t alive() const { return blocks_.size(); }
  size_t total() const { return total_; }

 private:
  void* allocate(size_t size, size_t alignment) {
    alignment = alignment < sizeof(void*) ? sizeof(void*) : alignment;
    void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    const std::lock_guard lock(mutex_);
    blocks_[memory] = size;
    ++total_;
    return memory;
  }
  void* reallocate(void* old, size_t size, size_t alignment) {
    if (size == 0) return release(old), nullptr;
    void* memory = allocate(size, alignment);
    if (old) {
      size_t before = 0;
      {
        const std::lock_guard lock(mutex_);
        before = blocks_.at(old);
      }
      memcpy(memory, old, before < size ? before : size);
      release(old);
    }
    return memory;
  }
  void release(void* memory) {
    if (!memory) return;
    {
      const std::lock_guard lock(mutex_);
      HOST_CHECK(blocks_.erase(memory) == 1);
    }
    std::free(memory);
  }
  std::mutex mutex_;
  std::map<void*, size_t> blocks_;
  size_t total_ = 0;
};

// Slices of one buffer, handed out at multiples of 256 bytes to any thread.
class Arena {
 public:
  Arena(host_device& device, uint64_t bytes)
      : device_(device), buffer_(host_buffer_create(&device, bytes, 0xff)) {}
  ~Arena() { host_buffer_destroy(&device_, &buffer_); }
  struct Slice {
    hadal_range range;
    void* mapped;
  };
  Slice take(uint64_t bytes) {
    const uint64_t at = used_.fetch_add((bytes + 255) / 256 * 256);
    HOST_CHECK(at + bytes <= buffer_.bytes);
    hadal_range range{};
    range.address = buffer_.address + at;
    range.bytes = bytes;
    return {range, static_cast<char*>(buffer_.mapped) + at};
  }

 private:
  host_device& device_;
  host_buffer buffer_;
  std::atomic<uint64_t> used_{0};
};

template <class T>
T sized() {
  T value{};
  value.struct_size = sizeof(T);
  return value;
}

std::mutex g_queue_mutex;  // both threads may share one queue

// Normalises rows, then gates them with themselves, kRounds times, and returns the last result.
std::vector<float> work(host_device& device, hadal_context* context, Arena& arena, VkQueue queue) {
  hadal_error error = HADAL_ERROR_INIT;
  const Arena::Slice x = arena.take(kRows * kN * 4), weight = arena.take(kN * 4);
  const Arena::Slice y = arena.take(kRows * kN * 4), z = arena.take(kRows * kN * 4);
  for (uint32_t i = 0; i < kRows * kN; ++i) {
    static_cast<float*>(x.mapped)[i] = float(int(i * 2654435761u >> 16) - 32768) / 32768.0f;
  }
  for (uint32_t i = 0; i < kN; ++i) static_cast<float*>(weight.mapped)[i] = 1.0f + float(i) / kN;
  VkCommandPoolCreateInfo pool_info{};
  pool_info.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool_info.queueFamilyIndex = device.family;
  VkCommandPool pool = VK_NULL_HANDLE;
  HOST_CHECK(HOST_DEVICE_FN(&device, CreateCommandPool)(device.device, &pool_info, nullptr,
                                                        &pool) == VK_SUCCESS);
  for (uint32_t round = 0; round < kRounds; ++round) {
    auto norm_desc = sized<hadal_rms_norm_desc>();
    norm_desc.rows = kRows, norm_desc.n = kN, norm_desc.flags = HADAL_RMS_NORM_Y;
    hadal_plan* norm = nullptr;
    HOST_OK(hadal_rms_norm_plan(context, &norm_desc, &norm, &error));
    auto gate_desc = sized<hadal_swiglu_desc>();
    gate_desc.rows = kRows, gate_desc.n = kN, gate_desc.flags = HADAL_SWIGLU_Y;
    hadal_plan* gate = nullptr;
    HOST_OK(hadal_swiglu_plan(context, &gate_desc, &gate, &error));
    VkCommandBuffer commands = host_begin(&device, pool);
    auto norm_args = sized<hadal_rms_norm_args>();
    norm_args.rows = kRows, norm_args.x = x.range, norm_args.weight = weight.range;
    norm_args.y = y.range;
    HOST_OK(hadal_rms_norm_record(norm, commands, &norm_args, &error));
    HOST_OK(hadal_barrier_record(context, commands, &error));
    auto gate_args = sized<hadal_swiglu_args>();
    gate_args.rows = kRows, gate_args.gate = y.range, gate_args.up = y.range;
    gate_args.y = z.range;
    HOST_OK(hadal_swiglu_record(gate, commands, &gate_args, &error));
    {
      const std::lock_guard lock(g_queue_mutex);
      host_submit(&device, queue, commands);
    }
    hadal_plan_destroy(norm);
    hadal_plan_destroy(gate);
  }
  HOST_DEVICE_FN(&device, DestroyCommandPool)(device.device, pool, nullptr);
  const float* first = static_cast<float*>(z.mapped);
  return std::vector<float>(first, first + kRows * kN);
}

}  // namespace

int main() {
  static host_instance instance;
  static host_device device;
  VkPhysicalDevice devices[8];
  hadal_error error = HADAL_ERROR_INIT;
  if (!host_instance_create(&instance) || host_physical_devices(&instance, devices) == 0) {
    fprintf(stderr, "no Vulkan device or validation layer\n");
    return 77;
  }
  host_device_create(&instance, devices[0], &device);
  HostAllocator allocator;
  hadal_context_info info = host_context_info(&device);
  info.allocation_callbacks = &allocator.callbacks;
  hadal_context* context = nullptr;
  HOST_OK(hadal_context_create(&info, &context, &error));
  std::vector<float> results[2];
  {
    Arena arena(device, 4u << 20);
    std::thread first([&] { results[0] = work(device, context, arena, device.queue); });
    std::thread second([&] { results[1] = work(device, context, arena, device.second_queue); });
    first.join();
    second.join();
  }
  HOST_CHECK(results[0] == results[1]);
  double sum = 0;
  for (float v : results[0]) sum += v;
  HOST_CHECK(sum > 0);  // silu(y) * y is positive on the whole
  HOST_OK(hadal_context_destroy(context, &error));
  printf("%zu blocks of the host's allocator, %zu left\n", allocator.total(), allocator.alive());
  HOST_CHECK(allocator.total() > 0 && allocator.alive() == 0);
  host_device_destroy(&device);
  host_instance_destroy(&instance);
  HOST_CHECK(instance.messages == 0);
  return 0;
}
