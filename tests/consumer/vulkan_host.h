/* A host that owns its Vulkan objects, as small as one can be: loader, instance with the validation
 * layer, device with what hadal asked for, buffers with device addresses. C99 and C++; no hadal but
 * its C ABI. Functions that fail print why and exit: these are test programs. */
#ifndef VULKAN_HOST_H
#define VULKAN_HOST_H

#include <dlfcn.h>
#include <hadal/hadal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver_leaks.h"

#define HOST_CHECK(condition)                                                  \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                 \
    }                                                                          \
  } while (0)
/* A call of hadal that must succeed; `error` is the caller's hadal_error. */
#define HOST_OK(call)                                                    \
  do {                                                                   \
    if ((call) != HADAL_OK) {                                            \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, error.message); \
      exit(1);                                                           \
    }                                                                    \
  } while (0)

typedef struct host_instance {
  PFN_vkGetInstanceProcAddr get;
  VkInstance instance;
  VkDebugUtilsMessengerEXT messenger;
  int messages; /* of the validation layer */
} host_instance;

typedef struct host_device {
  host_instance* owner;
  VkPhysicalDevice physical;
  VkDevice device;
  VkQueue queue, second_queue; /* the same one where the family has but one */
  uint32_t family;
  /* What vkCreateDevice was given, for hadal_context_info. */
  VkDeviceCreateInfo info;
  VkDeviceQueueCreateInfo queues;
  float priorities[2];
  const char* extensions[16];
  VkPhysicalDeviceFeatures2 features;
  VkPhysicalDeviceVulkan11Features v11;
  VkPhysicalDeviceVulkan12Features v12;
  VkPhysicalDeviceSubgroupSizeControlFeatures sizes;
#ifdef VK_KHR_cooperative_matrix
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
#endif
  VkCommandPool pool;
} host_device;

typedef struct host_buffer {
  VkBuffer buffer;
  VkDeviceMemory memory;
  VkDeviceAddress address;
  VkDeviceSize bytes;
  void* mapped;
} host_buffer;

#define HOST_INSTANCE_FN(h, name) ((PFN_vk##name)(h)->get((h)->instance, "vk" #name))
#define HOST_DEVICE_FN(d, name) \
  ((PFN_vk##name)HOST_INSTANCE_FN((d)->owner, GetDeviceProcAddr)((d)->device, "vk" #name))

static inline VKAPI_ATTR VkBool32 VKAPI_CALL host_on_message(
    VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types,
    const VkDebugUtilsMessengerCallbackDataEXT* data, void* user) {
  (void)severity;
  /* General messages are the loader's remarks on ICD files. */
  if (types == VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT) return VK_FALSE;
  ++((host_instance*)user)->messages;
  fprintf(stderr, "validation: %s\n", data->pMessage);
  return VK_FALSE;
}

/* 0 where there is no Vulkan loader, validation layer or driver. */
static inline int host_instance_create(host_instance* h) {
  memset(h, 0, sizeof(*h));
  driver_leaks_show();
  void* loader = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!loader) return 0;
  *(void**)(&h->get) = dlsym(loader, "vkGetInstanceProcAddr");
  HOST_CHECK(h->get);
  VkApplicationInfo app;
  memset(&app, 0, sizeof(app));
  app.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  app.apiVersion = VK_API_VERSION_1_2;
  VkDebugUtilsMessengerCreateInfoEXT debug;
  memset(&debug, 0, sizeof(debug));
  debug.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
  debug.messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                          VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  debug.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
  debug.pfnUserCallback = host_on_message;
  debug.pUserData = h;
  const char* layer = "VK_LAYER_KHRONOS_validation";
  const char* extension = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
  VkInstanceCreateInfo info;
  memset(&info, 0, sizeof(info));
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pNext = &debug;
  info.pApplicationInfo = &app;
  info.enabledLayerCount = 1;
  info.ppEnabledLayerNames = &layer;
  info.enabledExtensionCount = 1;
  info.ppEnabledExtensionNames = &extension;
  PFN_vkCreateInstance create = (PFN_vkCreateInstance)h->get(VK_NULL_HANDLE, "vkCreateInstance");
  if (create(&info, NULL, &h->instance) != VK_SUCCESS) return 0;
  HOST_CHECK(HOST_INSTANCE_FN(h, CreateDebugUtilsMessengerEXT)(h->instance, &debug, NULL,
                                                               &h->messenger) == VK_SUCCESS);
  return 1;
}

static inline void host_instance_destroy(host_instance* h) {
  HOST_INSTANCE_FN(h, DestroyDebugUtilsMessengerEXT)(h->instance, h->messenger, NULL);
  HOST_INSTANCE_FN(h, DestroyInstance)(h->instance, NULL);
}

/* At most 8 devices; returns their number. */
static inline uint32_t host_physical_devices(host_instance* h, VkPhysicalDevice devices[8]) {
  uint32_t count = 8;
  const VkResult result =
      HOST_INSTANCE_FN(h, EnumeratePhysicalDevices)(h->instance, &count, devices);
  return result == VK_SUCCESS || result == VK_INCOMPLETE ? count : 0;
}

static inline hadal_device_query host_query(host_instance* h, VkPhysicalDevice physical) {
  hadal_device_query query;
  memset(&query, 0, sizeof(query));
  query.struct_size = sizeof(query);
  query.get_instance_proc_addr = h->get;
  query.instance = h->instance;
  query.physical_device = physical;
  query.api_version = VK_API_VERSION_1_2;
  return query;
}

/* The chain of the structures that hadal may want bits in; hadal sets them. */
static inline void host_chain_features(host_device* d) {
  d->features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  d->v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  d->v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  d->features.pNext = &d->v11;
  d->v11.pNext = &d->v12;
  void** tail = &d->v12.pNext;
  for (uint32_t i = 0; i < d->info.enabledExtensionCount; ++i) {
    if (strcmp(d->extensions[i], "VK_EXT_subgroup_size_control") == 0) {
      d->sizes.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES;
      *tail = &d->sizes;
      tail = &d->sizes.pNext;
    }
#ifdef VK_KHR_cooperative_matrix
    if (strcmp(d->extensions[i], "VK_KHR_cooperative_matrix") == 0) {
      d->matrix.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR;
      *tail = &d->matrix;
      tail = &d->matrix.pNext;
    }
#endif
  }
}

/* A device with everything that hadal may use. `d` must not move while it lives. */
static inline void host_device_create(host_instance* h, VkPhysicalDevice physical, host_device* d) {
  hadal_error error = HADAL_ERROR_INIT;
  memset(d, 0, sizeof(*d));
  d->owner = h;
  d->physical = physical;
  VkQueueFamilyProperties families[16];
  uint32_t count = 16;
  HOST_INSTANCE_FN(h, GetPhysicalDeviceQueueFamilyProperties)(physical, &count, families);
  while (d->family < count && !(families[d->family].queueFlags & VK_QUEUE_COMPUTE_BIT)) ++d->family;
  HOST_CHECK(d->family < count);
  d->priorities[0] = d->priorities[1] = 1.0f;
  d->queues.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  d->queues.queueFamilyIndex = d->family;
  d->queues.queueCount = families[d->family].queueCount > 1 ? 2 : 1;
  d->queues.pQueuePriorities = d->priorities;
  d->info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  d->info.queueCreateInfoCount = 1;
  d->info.pQueueCreateInfos = &d->queues;
  d->info.enabledExtensionCount = 16;
  d->info.ppEnabledExtensionNames = d->extensions;

  const hadal_device_query query = host_query(h, physical);
  HOST_OK(hadal_device_extensions(&query, &d->info.enabledExtensionCount, d->extensions, &error));
  host_chain_features(d);
  HOST_OK(hadal_device_enable(&query, &d->features, &error));
  d->info.pNext = &d->features;
  HOST_CHECK(HOST_INSTANCE_FN(h, CreateDevice)(physical, &d->info, NULL, &d->device) == VK_SUCCESS);
  HOST_DEVICE_FN(d, GetDeviceQueue)(d->device, d->family, 0, &d->queue);
  HOST_DEVICE_FN(d, GetDeviceQueue)
  (d->device, d->family, d->queues.queueCount - 1, &d->second_queue);
  VkCommandPoolCreateInfo pool;
  memset(&pool, 0, sizeof(pool));
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.queueFamilyIndex = d->family;
  HOST_CHECK(HOST_DEVICE_FN(d, CreateCommandPool)(d->device, &pool, NULL, &d->pool) == VK_SUCCESS);
}

static inline void host_device_destroy(host_device* d) {
  HOST_DEVICE_FN(d, DestroyCommandPool)(d->device, d->pool, NULL);
  HOST_DEVICE_FN(d, DestroyDevice)(d->device, NULL);
}

static inline hadal_context_info host_context_info(host_device* d) {
  hadal_context_info info;
  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  info.get_instance_proc_addr = d->owner->get;
  info.instance = d->owner->instance;
  info.physical_device = d->physical;
  info.device = d->device;
  info.queue_family = d->family;
  info.create_info = &d->info;
  return info;
}

/* Host-visible memory, filled with `fill`. */
static inline host_buffer host_buffer_create(host_device* d, VkDeviceSize bytes, int fill) {
  host_buffer b;
  memset(&b, 0, sizeof(b));
  b.bytes = bytes;
  VkBufferCreateInfo info;
  memset(&info, 0, sizeof(info));
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = bytes;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT |
               VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
               VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  HOST_CHECK(HOST_DEVICE_FN(d, CreateBuffer)(d->device, &info, NULL, &b.buffer) == VK_SUCCESS);
  VkMemoryRequirements needs;
  HOST_DEVICE_FN(d, GetBufferMemoryRequirements)(d->device, b.buffer, &needs);
  VkPhysicalDeviceMemoryProperties types;
  HOST_INSTANCE_FN(d->owner, GetPhysicalDeviceMemoryProperties)(d->physical, &types);
  const VkMemoryPropertyFlags wanted =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  uint32_t type = 0;
  while (type < types.memoryTypeCount &&
         (!(needs.memoryTypeBits >> type & 1) ||
          (types.memoryTypes[type].propertyFlags & wanted) != wanted)) {
    ++type;
  }
  HOST_CHECK(type < types.memoryTypeCount);
  VkMemoryAllocateFlagsInfo flags;
  memset(&flags, 0, sizeof(flags));
  flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO;
  flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
  VkMemoryAllocateInfo allocate;
  memset(&allocate, 0, sizeof(allocate));
  allocate.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocate.pNext = &flags;
  allocate.allocationSize = needs.size;
  allocate.memoryTypeIndex = type;
  HOST_CHECK(HOST_DEVICE_FN(d, AllocateMemory)(d->device, &allocate, NULL, &b.memory) ==
             VK_SUCCESS);
  HOST_CHECK(HOST_DEVICE_FN(d, BindBufferMemory)(d->device, b.buffer, b.memory, 0) == VK_SUCCESS);
  HOST_CHECK(HOST_DEVICE_FN(d, MapMemory)(d->device, b.memory, 0, bytes, 0, &b.mapped) ==
             VK_SUCCESS);
  memset(b.mapped, fill, (size_t)bytes);
  VkBufferDeviceAddressInfo address;
  memset(&address, 0, sizeof(address));
  address.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
  address.buffer = b.buffer;
  b.address = HOST_DEVICE_FN(d, GetBufferDeviceAddress)(d->device, &address);
  return b;
}

static inline void host_buffer_destroy(host_device* d, host_buffer* b) {
  HOST_DEVICE_FN(d, DestroyBuffer)(d->device, b->buffer, NULL);
  HOST_DEVICE_FN(d, FreeMemory)(d->device, b->memory, NULL);
}

/* The whole buffer as an operand, by address and size; or by buffer, offset and size. */
static inline hadal_range host_range(const host_buffer* b) {
  hadal_range range;
  memset(&range, 0, sizeof(range));
  range.address = b->address;
  range.bytes = b->bytes;
  return range;
}
static inline hadal_range host_buffer_range(const host_buffer* b, VkDeviceSize offset) {
  hadal_range range;
  memset(&range, 0, sizeof(range));
  range.buffer = b->buffer;
  range.offset = offset;
  range.bytes = b->bytes - offset;
  return range;
}

/* A command buffer of `pool` in the recording state. */
static inline VkCommandBuffer host_begin(host_device* d, VkCommandPool pool) {
  VkCommandBufferAllocateInfo info;
  memset(&info, 0, sizeof(info));
  info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  info.commandPool = pool;
  info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  info.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  HOST_CHECK(HOST_DEVICE_FN(d, AllocateCommandBuffers)(d->device, &info, &commands) == VK_SUCCESS);
  VkCommandBufferBeginInfo begin;
  memset(&begin, 0, sizeof(begin));
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  HOST_CHECK(HOST_DEVICE_FN(d, BeginCommandBuffer)(commands, &begin) == VK_SUCCESS);
  return commands;
}

/* Makes the results visible to the host, ends, submits and waits. */
static inline void host_submit(host_device* d, VkQueue queue, VkCommandBuffer commands) {
  VkMemoryBarrier memory;
  memset(&memory, 0, sizeof(memory));
  memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  memory.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  HOST_DEVICE_FN(d, CmdPipelineBarrier)
  (commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
   VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &memory, 0, NULL, 0, NULL);
  HOST_CHECK(HOST_DEVICE_FN(d, EndCommandBuffer)(commands) == VK_SUCCESS);
  VkSubmitInfo submit;
  memset(&submit, 0, sizeof(submit));
  submit.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  submit.commandBufferCount = 1;
  submit.pCommandBuffers = &commands;
  HOST_CHECK(HOST_DEVICE_FN(d, QueueSubmit)(queue, 1, &submit, VK_NULL_HANDLE) == VK_SUCCESS);
  HOST_CHECK(HOST_DEVICE_FN(d, QueueWaitIdle)(queue) == VK_SUCCESS);
}

#endif /* VULKAN_HOST_H */
