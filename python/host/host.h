/* What a host of hadal/hadal.h does itself, for a caller that has no Vulkan of its own (Python): an
 * instance and device with all that hadal may use, host-visible memory, one command buffer at a
 * time. Strictly on the C ABI, C99; private to the Python package, no promise.
 *
 * A host is one thread's at a time. Statuses and errors are hadal's. */
#ifndef HADAL_PYTHON_HOST_H
#define HADAL_PYTHON_HOST_H

#include <hadal/hadal.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hadal_host hadal_host;

/* Device `index` of the loader's list, which is that of hadal_engine_device_describe. */
HADAL_API hadal_status hadal_host_open(uint32_t index, hadal_host** host, hadal_error* error);
/* After its plans and memory. NULL is a no-op. */
HADAL_API void hadal_host_close(hadal_host* host);
HADAL_API hadal_context* hadal_host_context(const hadal_host* host);

typedef struct hadal_host_memory {
  void* mapped; /* coherent */
  VkDeviceAddress address;
  VkBuffer buffer;
  VkDeviceMemory memory;
  VkDeviceSize bytes;
} hadal_host_memory;
/* At least 1 byte; not cleared. */
HADAL_API hadal_status hadal_host_allocate(hadal_host* host, VkDeviceSize bytes,
                                           hadal_host_memory* memory, hadal_error* error);
HADAL_API void hadal_host_free(hadal_host* host, const hadal_host_memory* memory);

/* The command buffer, in the recording state. */
HADAL_API hadal_status hadal_host_begin(hadal_host* host, VkCommandBuffer* commands,
                                        hadal_error* error);
/* Ends it, submits it, waits; what it wrote may be read. */
HADAL_API hadal_status hadal_host_submit(hadal_host* host, hadal_error* error);

#ifdef __cplusplus
}
#endif

#endif /* HADAL_PYTHON_HOST_H */
