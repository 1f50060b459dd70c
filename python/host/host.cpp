#include "host.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

struct hadal_host {
  PFN_vkGetInstanceProcAddr get = nullptr;
  VkInstance instance = VK_NULL_HANDLE;
  VkPhysicalDevice physical = VK_NULL_HANDLE;
  PFN_vkGetDeviceProcAddr get_device = nullptr;
  VkDevice device = VK_NULL_HANDLE;
  VkQueue queue = VK_NULL_HANDLE;
  uint32_t family = 0;
  VkCommandPool pool = VK_NULL_HANDLE;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  VkFence fence = VK_NULL_HANDLE;
  VkPhysicalDeviceMemoryProperties types{};
  hadal_host_memory constants{};
  hadal_context* context = nullptr;

  template <class F>
  F of_instance(const char* name) const {
    return reinterpret_cast<F>(get(instance, name));
  }
  template <class F>
  F of_device(const char* name) const {
    return reinterpret_cast<F>(get_device(device, name));
  }
};

#define OF_INSTANCE(h, name) (h).of_instance<PFN_vk##name>("vk" #name)
#define OF_DEVICE(h, name) (h).of_device<PFN_vk##name>("vk" #name)

namespace {

hadal_status fail(hadal_error* error, hadal_status status, const char* what, int result = 0) {
  if (error && error->struct_size >= sizeof(hadal_error)) {
    error->status = status;
    if (result) {
      std::snprintf(error->message, sizeof(error->message), "host: %s: VkResult %d", what, result);
    } else {
      std::snprintf(error->message, sizeof(error->message), "host: %s", what);
    }
  }
  return status;
}

hadal_status check(VkResult result, const char* what, hadal_error* error) {
  switch (result) {
    case VK_SUCCESS: return HADAL_OK;
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      return fail(error, HADAL_ERROR_OUT_OF_HOST_MEMORY, what, result);
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
      return fail(error, HADAL_ERROR_OUT_OF_DEVICE_MEMORY, what, result);
    case VK_ERROR_DEVICE_LOST: return fail(error, HADAL_ERROR_DEVICE_LOST, what, result);
    default: return fail(error, HADAL_ERROR_INTERNAL, what, result);
  }
}

#define TRY(expression)                                                   \
  do {                                                                    \
    if (const hadal_status status_ = (expression); status_ != HADAL_OK) { \
      return status_;                                                     \
    }                                                                     \
  } while (false)

hadal_status make_instance(hadal_host& h, uint32_t index, hadal_error* error) {
  // Never closed: drivers do not like to be unloaded.
  void* loader = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!loader) return fail(error, HADAL_ERROR_NO_DEVICE, "libvulkan.so.1 cannot be opened");
  h.get = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(loader, "vkGetInstanceProcAddr"));
  if (!h.get) return fail(error, HADAL_ERROR_NO_DEVICE, "libvulkan has no vkGetInstanceProcAddr");
  VkApplicationInfo app{};
  app.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  app.apiVersion = VK_API_VERSION_1_2;
  VkInstanceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &app;
  const auto create = reinterpret_cast<PFN_vkCreateInstance>(h.get(nullptr, "vkCreateInstance"));
  TRY(check(create(&info, nullptr, &h.instance), "vkCreateInstance", error));
  h.get_device = OF_INSTANCE(h, GetDeviceProcAddr);
  uint32_t count = 0;
  TRY(check(OF_INSTANCE(h, EnumeratePhysicalDevices)(h.instance, &count, nullptr),
            "vkEnumeratePhysicalDevices", error));
  std::vector<VkPhysicalDevice> devices(count);
  TRY(check(OF_INSTANCE(h, EnumeratePhysicalDevices)(h.instance, &count, devices.data()),
            "vkEnumeratePhysicalDevices", error));
  if (index >= count) return fail(error, HADAL_ERROR_NO_DEVICE, "there is no device of that index");
  h.physical = devices[index];
  OF_INSTANCE(h, GetPhysicalDeviceMemoryProperties)(h.physical, &h.types);
  return HADAL_OK;
}

hadal_status choose_family(hadal_host& h, hadal_error* error) {
  uint32_t count = 0;
  OF_INSTANCE(h, GetPhysicalDeviceQueueFamilyProperties)(h.physical, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  OF_INSTANCE(h, GetPhysicalDeviceQueueFamilyProperties)(h.physical, &count, families.data());
  while (h.family < count && !(families[h.family].queueFlags & VK_QUEUE_COMPUTE_BIT)) ++h.family;
  if (h.family < count) return HADAL_OK;
  return fail(error, HADAL_ERROR_UNSUPPORTED, "the device has no compute queue");
}

// Every structure that hadal may set a bit in, of those whose extension is on.
struct Features {
  VkPhysicalDeviceFeatures2 core{};
  VkPhysicalDeviceVulkan11Features v11{};
  VkPhysicalDeviceVulkan12Features v12{};
  VkPhysicalDeviceSubgroupSizeControlFeatures sizes{};
#ifdef VK_KHR_cooperative_matrix  // headers of Vulkan 1.3.255
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix{};
#endif
  explicit Features(const std::vector<const char*>& extensions) {
    core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    sizes.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES;
    core.pNext = &v11, v11.pNext = &v12;
    void** tail = &v12.pNext;
    for (const char* name : extensions) {
      if (!std::strcmp(name, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) {
        *tail = &sizes, tail = &sizes.pNext;
      }
#ifdef VK_KHR_cooperative_matrix
      if (!std::strcmp(name, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) {
        matrix.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR;
        *tail = &matrix, tail = &matrix.pNext;
      }
#endif
    }
  }
};

hadal_status make_context(hadal_host& h, const VkDeviceCreateInfo& created, hadal_error* error) {
  TRY(hadal_host_allocate(&h, HADAL_CONSTANTS_BYTES, &h.constants, error));
  hadal_constants_write(h.constants.mapped);
  hadal_context_info info{};
  info.struct_size = sizeof(info);
  info.get_instance_proc_addr = h.get;
  info.instance = h.instance;
  info.physical_device = h.physical;
  info.device = h.device;
  info.queue_family = h.family;
  info.create_info = &created;
  info.constants = h.constants.address;
  return hadal_context_create(&info, &h.context, error);
}

hadal_status make_device(hadal_host& h, hadal_error* error) {
  TRY(choose_family(h, error));
  hadal_device_query query{};
  query.struct_size = sizeof(query);
  query.get_instance_proc_addr = h.get;
  query.instance = h.instance;
  query.physical_device = h.physical;
  uint32_t count = 0;
  TRY(hadal_device_extensions(&query, &count, nullptr, error));
  std::vector<const char*> extensions(count);
  TRY(hadal_device_extensions(&query, &count, extensions.data(), error));
  Features features(extensions);
  TRY(hadal_device_enable(&query, &features.core, error));
  const float priority = 1.0f;
  VkDeviceQueueCreateInfo queue{};
  queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queue.queueFamilyIndex = h.family;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  VkDeviceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &features.core;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = count;
  info.ppEnabledExtensionNames = extensions.data();
  TRY(check(OF_INSTANCE(h, CreateDevice)(h.physical, &info, nullptr, &h.device), "vkCreateDevice",
            error));
  OF_DEVICE(h, GetDeviceQueue)(h.device, h.family, 0, &h.queue);

  VkCommandPoolCreateInfo pool{};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.queueFamilyIndex = h.family;
  TRY(check(OF_DEVICE(h, CreateCommandPool)(h.device, &pool, nullptr, &h.pool),
            "vkCreateCommandPool", error));
  VkCommandBufferAllocateInfo buffers{};
  buffers.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  buffers.commandPool = h.pool;
  buffers.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  buffers.commandBufferCount = 1;
  TRY(check(OF_DEVICE(h, AllocateCommandBuffers)(h.device, &buffers, &h.commands),
            "vkAllocateCommandBuffers", error));
  VkFenceCreateInfo fence{};
  fence.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO;
  TRY(check(OF_DEVICE(h, CreateFence)(h.device, &fence, nullptr, &h.fence), "vkCreateFence",
            error));
  return make_context(h, info, error);
}

// A mapped, coherent type: the device's own if there is one, else what the host caches.
uint32_t memory_type(const hadal_host& h, uint32_t allowed) {
  constexpr VkMemoryPropertyFlags kNeeded =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  for (const VkMemoryPropertyFlags more :
       {VkMemoryPropertyFlags(VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT |
                              VK_MEMORY_PROPERTY_HOST_CACHED_BIT),
        VkMemoryPropertyFlags(VK_MEMORY_PROPERTY_HOST_CACHED_BIT), VkMemoryPropertyFlags(0)}) {
    for (uint32_t i = 0; i < h.types.memoryTypeCount; ++i) {
      const VkMemoryPropertyFlags flags = h.types.memoryTypes[i].propertyFlags;
      if ((allowed >> i & 1) && (flags & (kNeeded | more)) == (kNeeded | more)) return i;
    }
  }
  return UINT32_MAX;
}

hadal_status allocate(hadal_host& h, hadal_host_memory& made, hadal_error* error) {
  VkBufferCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = made.bytes;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
               VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
               VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  TRY(check(OF_DEVICE(h, CreateBuffer)(h.device, &info, nullptr, &made.buffer), "vkCreateBuffer",
            error));
  VkMemoryRequirements needs{};
  OF_DEVICE(h, GetBufferMemoryRequirements)(h.device, made.buffer, &needs);
  VkMemoryAllocateFlagsInfo flags{};
  flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO;
  flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
  VkMemoryAllocateInfo request{};
  request.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  request.pNext = &flags;
  request.allocationSize = needs.size;
  request.memoryTypeIndex = memory_type(h, needs.memoryTypeBits);
  if (request.memoryTypeIndex == UINT32_MAX) {
    return fail(error, HADAL_ERROR_UNSUPPORTED, "the device has no memory that the host can map");
  }
  TRY(check(OF_DEVICE(h, AllocateMemory)(h.device, &request, nullptr, &made.memory),
            "vkAllocateMemory", error));
  TRY(check(OF_DEVICE(h, BindBufferMemory)(h.device, made.buffer, made.memory, 0),
            "vkBindBufferMemory", error));
  TRY(check(OF_DEVICE(h, MapMemory)(h.device, made.memory, 0, VK_WHOLE_SIZE, 0, &made.mapped),
            "vkMapMemory", error));
  VkBufferDeviceAddressInfo address{};
  address.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
  address.buffer = made.buffer;
  made.address = OF_DEVICE(h, GetBufferDeviceAddress)(h.device, &address);
  return HADAL_OK;
}

}  // namespace

hadal_status hadal_host_open(uint32_t index, hadal_host** host, hadal_error* error) {
  hadal_host* made = new (std::nothrow) hadal_host;
  if (!made) return fail(error, HADAL_ERROR_OUT_OF_HOST_MEMORY, "out of host memory");
  hadal_status status = HADAL_ERROR_OUT_OF_HOST_MEMORY;
  try {
    status = make_instance(*made, index, error);
    if (status == HADAL_OK) status = make_device(*made, error);
  } catch (const std::bad_alloc&) {
    fail(error, status, "out of host memory");
  }
  if (status == HADAL_OK) {
    *host = made;
  } else {
    hadal_host_close(made);
  }
  return status;
}

void hadal_host_close(hadal_host* host) {
  if (!host) return;
  if (host->device) {
    OF_DEVICE(*host, DeviceWaitIdle)(host->device);
    hadal_context_destroy(host->context, nullptr);
    hadal_host_free(host, &host->constants);
    OF_DEVICE(*host, DestroyFence)(host->device, host->fence, nullptr);
    OF_DEVICE(*host, DestroyCommandPool)(host->device, host->pool, nullptr);
    OF_DEVICE(*host, DestroyDevice)(host->device, nullptr);
  }
  if (host->instance) OF_INSTANCE(*host, DestroyInstance)(host->instance, nullptr);
  delete host;
}

hadal_context* hadal_host_context(const hadal_host* host) {
  return host->context;
}

hadal_status hadal_host_allocate(hadal_host* host, VkDeviceSize bytes, hadal_host_memory* memory,
                                 hadal_error* error) {
  hadal_host_memory made{};
  made.bytes = bytes;
  const hadal_status status = allocate(*host, made, error);
  if (status == HADAL_OK) {
    *memory = made;
  } else {
    hadal_host_free(host, &made);
  }
  return status;
}

void hadal_host_free(hadal_host* host, const hadal_host_memory* memory) {
  OF_DEVICE(*host, DestroyBuffer)(host->device, memory->buffer, nullptr);
  OF_DEVICE(*host, FreeMemory)(host->device, memory->memory, nullptr);
}

hadal_status hadal_host_begin(hadal_host* host, VkCommandBuffer* commands, hadal_error* error) {
  TRY(check(OF_DEVICE(*host, ResetCommandPool)(host->device, host->pool, 0), "vkResetCommandPool",
            error));
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  TRY(check(OF_DEVICE(*host, BeginCommandBuffer)(host->commands, &begin), "vkBeginCommandBuffer",
            error));
  *commands = host->commands;
  return HADAL_OK;
}

hadal_status hadal_host_submit(hadal_host* host, hadal_error* error) {
  VkMemoryBarrier memory{};
  memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  memory.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  OF_DEVICE(*host, CmdPipelineBarrier)
  (host->commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
   VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &memory, 0, nullptr, 0, nullptr);
  TRY(check(OF_DEVICE(*host, EndCommandBuffer)(host->commands), "vkEndCommandBuffer", error));
  VkSubmitInfo submit{};
  submit.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  submit.commandBufferCount = 1;
  submit.pCommandBuffers = &host->commands;
  TRY(check(OF_DEVICE(*host, QueueSubmit)(host->queue, 1, &submit, host->fence), "vkQueueSubmit",
            error));
  const VkResult waited =
      OF_DEVICE(*host, WaitForFences)(host->device, 1, &host->fence, VK_TRUE, UINT64_MAX);
  TRY(check(waited, "vkWaitForFences", error));
  return check(OF_DEVICE(*host, ResetFences)(host->device, 1, &host->fence), "vkResetFences",
               error);
}
