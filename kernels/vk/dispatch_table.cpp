#include "dispatch_table.h"

namespace hadal::vk {

bool InstanceTable::load(PFN_vkGetInstanceProcAddr get, VkInstance instance) {
  bool complete = true;
#define HADAL_X(name)                                               \
  name = reinterpret_cast<PFN_vk##name>(get(instance, "vk" #name)); \
  complete = complete && name != nullptr;
  HADAL_VK_INSTANCE_FUNCTIONS(HADAL_X)
#undef HADAL_X
  return complete;
}

bool DeviceTable::load(PFN_vkGetDeviceProcAddr get, VkDevice device) {
  bool complete = true;
#define HADAL_X(name)                                             \
  name = reinterpret_cast<PFN_vk##name>(get(device, "vk" #name)); \
  complete = complete && name != nullptr;
  HADAL_VK_DEVICE_FUNCTIONS(HADAL_X)
#undef HADAL_X
  return complete;
}

}  // namespace hadal::vk
