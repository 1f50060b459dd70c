#include "instance.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstring>

#include "result.h"

namespace hadal::vk {
namespace {

constexpr const char* kValidationLayer = "VK_LAYER_KHRONOS_validation";

VKAPI_ATTR VkBool32 VKAPI_CALL on_validation_message(
    VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types,
    const VkDebugUtilsMessengerCallbackDataEXT* data, void* user) {
  auto* validation = static_cast<ValidationLog*>(user);
  // General messages are the loader's remarks on the system's ICD files, not about our calls.
  if (types == VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT) return VK_FALSE;
  const std::string text = data->pMessage ? data->pMessage : "(no text)";
  {
    std::scoped_lock lock(validation->mutex);
    if (validation->count++ == 0) validation->first = text;
  }
  if (validation->log) {
    const bool error = severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    validation->log(error ? LogLevel::kError : LogLevel::kWarning, text);
  }
  return VK_FALSE;
}

}  // namespace

Status Instance::open_loader() {
  library_ = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library_) return {Errc::kNoDevice, fmt::format("device: no Vulkan loader ({})", dlerror())};
  get_instance_proc_addr =
      reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library_, "vkGetInstanceProcAddr"));
  if (!get_instance_proc_addr) {
    return {Errc::kNoDevice, "device: libvulkan.so.1 has no vkGetInstanceProcAddr"};
  }
  return {};
}

Status Instance::create_instance(bool with_validation) {
  const auto create = reinterpret_cast<PFN_vkCreateInstance>(
      get_instance_proc_addr(VK_NULL_HANDLE, "vkCreateInstance"));
  if (!create) return {Errc::kNoDevice, "device: the Vulkan loader has no vkCreateInstance"};
  VkApplicationInfo app{};
  app.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  app.pEngineName = "hadal";
  app.apiVersion = VK_API_VERSION_1_3;  // the most that is used; devices of 1.2 are accepted

  VkDebugUtilsMessengerCreateInfoEXT debug{};
  debug.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
  debug.messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                          VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  debug.messageType =
      VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
  debug.pfnUserCallback = on_validation_message;
  debug.pUserData = &validation;

  const char* debug_extension = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
  VkInstanceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &app;
  if (with_validation) {
    info.pNext = &debug;
    info.enabledLayerCount = 1;
    info.ppEnabledLayerNames = &kValidationLayer;
    info.enabledExtensionCount = 1;
    info.ppEnabledExtensionNames = &debug_extension;
  }
  HADAL_TRY(to_status(create(&info, nullptr, &handle), "device: vkCreateInstance"));
  if (!table.load(get_instance_proc_addr, handle)) {
    return {Errc::kNoDevice, "device: the Vulkan loader lacks functions of Vulkan 1.1"};
  }
  if (with_validation) {
    const auto create_messenger = reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(
        get_instance_proc_addr(handle, "vkCreateDebugUtilsMessengerEXT"));
    if (create_messenger) {
      HADAL_TRY(to_status(create_messenger(handle, &debug, nullptr, &messenger_),
                          "device: vkCreateDebugUtilsMessengerEXT"));
    }
  }
  return {};
}

Result<std::unique_ptr<Instance>> Instance::create(bool validation, LogFn log) {
  std::unique_ptr<Instance> instance(new Instance);
  instance->validation.log = std::move(log);
  HADAL_TRY(instance->open_loader());
  HADAL_TRY(instance->create_instance(validation));
  return instance;
}

Instance::~Instance() {
  if (messenger_) {
    const auto destroy = reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(
        get_instance_proc_addr(handle, "vkDestroyDebugUtilsMessengerEXT"));
    if (destroy) destroy(handle, messenger_, nullptr);
  }
  if (handle && table.DestroyInstance) table.DestroyInstance(handle, nullptr);
  // The loader stays mapped: drivers leave threads and atexit handlers behind that unloading
  // breaks.
}

Result<std::vector<VkPhysicalDevice>> Instance::physical_devices() const {
  uint32_t count = 0;
  HADAL_TRY(to_status(table.EnumeratePhysicalDevices(handle, &count, nullptr),
                      "device: vkEnumeratePhysicalDevices"));
  std::vector<VkPhysicalDevice> devices(count);
  HADAL_TRY(to_status(table.EnumeratePhysicalDevices(handle, &count, devices.data()),
                      "device: vkEnumeratePhysicalDevices"));
  devices.resize(count);
  return devices;
}

}  // namespace hadal::vk
