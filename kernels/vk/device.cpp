#include "hadal/device.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <fstream>

#include "device_impl.h"
#include "feature_table.h"
#include "hadal/recorder.h"
#include "hadal/version.h"
#include "optional_features.h"

namespace hadal {
namespace vk {
namespace {

bool contains_ignoring_case(std::string_view text, std::string_view part) {
  const auto equal = [](char a, char b) { return std::tolower(a) == std::tolower(b); };
  return std::search(text.begin(), text.end(), part.begin(), part.end(), equal) != text.end();
}

struct Candidate {
  VkPhysicalDevice physical = VK_NULL_HANDLE;
  Caps caps;
};

std::string describe(const std::vector<Candidate>& candidates) {
  std::string names;
  for (size_t i = 0; i < candidates.size(); ++i) {
    names += fmt::format("{}{}: {}", i ? ", " : "", i, candidates[i].caps.device_name);
  }
  return names;
}

int preference(const Caps& caps) {
  return caps.is_discrete ? 2 : caps.is_cpu ? 0 : 1;
}

Result<Candidate> select_device(const std::vector<Candidate>& all, const std::string& select) {
  if (all.empty()) return Status(Errc::kNoDevice, "device: the Vulkan loader lists no device");
  const Candidate* best = nullptr;
  size_t index = 0;
  const auto [end, error] = std::from_chars(select.data(), select.data() + select.size(), index);
  if (!select.empty() && error == std::errc() && end == select.data() + select.size()) {
    if (index >= all.size()) {
      return Status(Errc::kNoDevice, fmt::format("device: index must be below {}, got {} ({})",
                                                 all.size(), index, describe(all)));
    }
    best = &all[index];
  } else {
    for (const Candidate& c : all) {
      if (!select.empty() && !contains_ignoring_case(c.caps.device_name, select)) continue;
      if (select.empty() && !missing_requirement(c.caps).empty()) continue;
      if (!best || preference(c.caps) > preference(best->caps)) best = &c;
    }
    if (!best && select.empty()) best = &all.front();  // its missing feature becomes the message
    if (!best) {
      return Status(Errc::kNoDevice,
                    fmt::format("device: no device named like '{}' ({})", select, describe(all)));
    }
  }
  if (const std::string missing = missing_requirement(best->caps); !missing.empty()) {
    return Status(Errc::kUnsupported,
                  fmt::format("device: {} lacks {}", best->caps.device_name, missing));
  }
  return *best;
}

Result<std::vector<Candidate>> candidates(const Instance& instance) {
  HADAL_ASSIGN(const auto devices, instance.physical_devices());
  std::vector<Candidate> result;
  for (VkPhysicalDevice device : devices) {
    result.push_back({device, query_caps(instance.table, instance.get_instance_proc_addr,
                                         instance.handle, device)});
  }
  return result;
}

Result<VkDevice> create_logical_device(const DeviceImpl& impl) {
  const Caps& caps = impl.caps;
  const std::vector<VkDeviceQueueCreateInfo> queues = impl.queues.create_infos();
  // The required features (missing_requirement), and the optional ones that caps says are usable.
  VkPhysicalDeviceVulkan12Features v12{};
  v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  v12.bufferDeviceAddress = v12.storageBuffer8BitAccess = v12.scalarBlockLayout = VK_TRUE;
  v12.timelineSemaphore = VK_TRUE;
  v12.shaderFloat16 = caps.shader_float16;
  v12.vulkanMemoryModel = v12.vulkanMemoryModelDeviceScope = caps.vulkan_memory_model;
  const OptionalChain optional(caps, &v12);
  VkPhysicalDeviceVulkan11Features v11{};
  v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  v11.pNext = optional.head;
  v11.storageBuffer16BitAccess = VK_TRUE;
  VkPhysicalDeviceFeatures2 features{};
  features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features.pNext = &v11;
  features.features.shaderInt64 = VK_TRUE;
  VkDeviceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &features;
  info.queueCreateInfoCount = uint32_t(queues.size());
  info.pQueueCreateInfos = queues.data();
  info.enabledExtensionCount = uint32_t(optional.extensions.size());
  info.ppEnabledExtensionNames = optional.extensions.data();
  VkDevice device = VK_NULL_HANDLE;
  HADAL_TRY(to_status(impl.instance_table.CreateDevice(impl.physical, &info, nullptr, &device),
                      "device: vkCreateDevice"));
  return device;
}

std::filesystem::path cache_file(const std::filesystem::path& dir, const Caps& caps) {
  std::string uuid;
  for (uint8_t byte : caps.pipeline_cache_uuid) uuid += fmt::format("{:02x}", byte);
  return dir / fmt::format("pipelines-{:04x}-{:04x}-{:08x}-{}-{}.bin", caps.vendor_id,
                           caps.device_id, caps.driver_version, uuid, HADAL_VERSION_STRING);
}

std::vector<char> read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

Status DeviceImpl::finish_setup(const DeviceOptions& options) {
  log = options.log;
  if (!table.load(instance_table.GetDeviceProcAddr, device)) {
    return {Errc::kUnsupported, "device: the driver lacks functions of Vulkan 1.2"};
  }
  if (!pipeline_cache) HADAL_TRY(create_pipeline_cache(options));
  if (queues.count() == 0) return {};  // records only
  HADAL_TRY(queues.open(table, device, callbacks()));
  return create_allocator(*this);
}

Status DeviceImpl::create_pipeline_cache(const DeviceOptions& options) {
  std::vector<char> blob;
  if (!options.cache_dir.empty()) {
    pipeline_cache_file = cache_file(options.cache_dir, caps);
    blob = read_file(pipeline_cache_file);
  }
  VkPipelineCacheCreateInfo cache{};
  cache.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO;
  cache.initialDataSize = blob.size();
  cache.pInitialData = blob.data();
  if (table.CreatePipelineCache(device, &cache, callbacks(), &pipeline_cache) == VK_SUCCESS)
    return {};
  cache.initialDataSize = 0;  // a blob that the driver does not take is as good as none
  return to_status(table.CreatePipelineCache(device, &cache, callbacks(), &pipeline_cache),
                   "device: vkCreatePipelineCache");
}

DeviceImpl::~DeviceImpl() {
  if (device && table.DeviceWaitIdle) {
    // A host's queues may be in use by its own threads, and Vulkan wants them all held still for
    // this.
    if (owns_device) (void)table.DeviceWaitIdle(device);
    pipelines.clear();
    e4m3_table = Buffer();
    if (pipeline_cache && owns_pipeline_cache)
      table.DestroyPipelineCache(device, pipeline_cache, callbacks());
    queues.close();
    destroy_allocator(*this);
    if (owns_device) table.DestroyDevice(device, nullptr);
  }
}

}  // namespace vk

Result<std::vector<Caps>> list_devices() {
  HADAL_ASSIGN(const auto instance, vk::Instance::create(false, {}));
  HADAL_ASSIGN(const auto all, vk::candidates(*instance));
  if (all.empty()) return Status(Errc::kNoDevice, "device: the Vulkan loader lists no device");
  std::vector<Caps> caps;
  for (const vk::Candidate& c : all) caps.push_back(c.caps);
  return caps;
}

Device::Device(std::unique_ptr<vk::DeviceImpl> impl) : impl_(std::move(impl)) {}
Device::~Device() {
  (void)save_pipeline_cache();
}

Result<std::unique_ptr<Device>> Device::create(const DeviceOptions& options) {
  auto impl = std::make_unique<vk::DeviceImpl>();
  HADAL_ASSIGN(impl->instance, vk::Instance::create(options.validation, options.log));
  vk::Instance& instance = *impl->instance;
  impl->validation = &instance.validation;
  impl->get_instance_proc_addr = instance.get_instance_proc_addr;
  impl->instance_handle = instance.handle;
  impl->instance_table = instance.table;
  HADAL_ASSIGN(const auto all, vk::candidates(instance));
  HADAL_ASSIGN(vk::Candidate chosen, vk::select_device(all, options.select));
  impl->physical = chosen.physical;
  impl->caps = std::move(chosen.caps);
  if (!impl->queues.choose(instance.table, impl->physical)) {
    return Status(Errc::kNoDevice,
                  fmt::format("device: {} has no compute queue", impl->caps.device_name));
  }
  if (!impl->queues[0].has_timestamps) impl->caps.timestamp_period_ns = 0.0;
  HADAL_ASSIGN(impl->device, vk::create_logical_device(*impl));
  impl->owns_device = true;
  HADAL_TRY(impl->finish_setup(options));
  return std::unique_ptr<Device>(new Device(std::move(impl)));
}

Result<std::unique_ptr<Device>> Device::borrow(const BorrowedDevice& handles,
                                               const DeviceOptions& options) {
  if (!handles.get_instance_proc_addr || !handles.instance || !handles.physical_device ||
      !handles.device) {
    return Status(Errc::kInvalidArgument,
                  "device: get_instance_proc_addr, instance, physical_device and device of "
                  "BorrowedDevice must be set");
  }
  if (handles.constants % kDeviceConstantsAlignment) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("device: constants must be a multiple of {}, got {:#x}",
                              kDeviceConstantsAlignment, handles.constants));
  }
  auto impl = std::make_unique<vk::DeviceImpl>();
  impl->get_instance_proc_addr = handles.get_instance_proc_addr;
  impl->instance_handle = handles.instance;
  if (!impl->instance_table.load(handles.get_instance_proc_addr, handles.instance)) {
    return Status(Errc::kUnsupported, "device: the instance lacks functions of Vulkan 1.1");
  }
  impl->physical = handles.physical_device;
  impl->device = handles.device;
  if (handles.queue) {
    impl->queues.borrow(handles.queue_family, handles.queue, handles.lock_queue,
                        handles.unlock_queue);
  }
  if (handles.allocation_callbacks) impl->host_callbacks = *handles.allocation_callbacks;
  impl->pipeline_cache = handles.pipeline_cache;
  impl->owns_pipeline_cache = handles.pipeline_cache == VK_NULL_HANDLE;
  impl->constants = handles.constants;
  impl->caps = vk::query_caps(impl->instance_table, handles.get_instance_proc_addr,
                              handles.instance, handles.physical_device);
  vk::keep_usable(vk::enabled_features(handles.create_info, impl->caps.api_version), impl->caps);
  if (handles.create_info) {
    const bool submits = handles.queue != VK_NULL_HANDLE;
    if (const auto* off = vk::first_required_off(*handles.create_info, submits)) {
      return Status(Errc::kInvalidArgument,
                    fmt::format("device: create_info must enable {}", off->name));
    }
  }
  impl->caps.device_constants = handles.constants != 0 || handles.queue != VK_NULL_HANDLE;
  if (const std::string missing = missing_requirement(impl->caps); !missing.empty()) {
    return Status(Errc::kUnsupported,
                  fmt::format("device: {} lacks {}", impl->caps.device_name, missing));
  }
  HADAL_TRY(impl->finish_setup(options));
  return std::unique_ptr<Device>(new Device(std::move(impl)));
}

const Caps& Device::caps() const noexcept {
  return impl_->caps;
}
uint64_t Device::allocated_bytes() const noexcept {
  return impl_->allocated_bytes;
}
uint64_t Device::peak_allocated_bytes() const noexcept {
  return impl_->peak_allocated_bytes;
}

uint32_t Device::validation_messages() const noexcept {
  return impl_->validation ? impl_->validation->count.load() : 0;
}

std::string Device::first_validation_message() const {
  if (!impl_->validation) return {};
  std::scoped_lock lock(impl_->validation->mutex);
  return impl_->validation->first;
}

uint32_t Device::queue_count() const noexcept {
  return impl_->queues.count();
}

Result<Ticket> Device::submit(Recorder& recorder) {
  if (queue_count() == 0) {
    return Status(Errc::kUnsupported, "run: the device was borrowed without a queue");
  }
  return impl_->queues.submit(recorder.queue(), recorder.command_buffer());
}

Status Device::wait(const Ticket& ticket) {
  return impl_->queues.wait(ticket);
}

Status Device::run(Recorder& recorder) {
  HADAL_ASSIGN(const Ticket ticket, submit(recorder));
  return wait(ticket);
}

Status Device::upload(const Buffer& dst, uint64_t dst_offset, std::span<const std::byte> src) {
  if (dst_offset > dst.bytes() || src.size() > dst.bytes() - dst_offset) {
    return {Errc::kInvalidArgument, fmt::format("upload: {} bytes at {} exceed the buffer's {}",
                                                src.size(), dst_offset, dst.bytes())};
  }
  if (src.empty()) return {};
  if (!dst.mapped().empty()) {
    std::memcpy(dst.mapped().data() + dst_offset, src.data(), src.size());
    return {};
  }
  HADAL_ASSIGN(Buffer staging, allocate(src.size(), MemoryKind::kUpload));
  std::memcpy(staging.mapped().data(), src.data(), src.size());
  HADAL_ASSIGN(Recorder recorder, Recorder::create(*this));
  HADAL_TRY(recorder.copy(staging, 0, dst, dst_offset, src.size()));
  HADAL_TRY(recorder.end());
  return run(recorder);
}

Status Device::download(const Buffer& src, uint64_t src_offset, std::span<std::byte> dst) {
  if (src_offset > src.bytes() || dst.size() > src.bytes() - src_offset) {
    return {Errc::kInvalidArgument, fmt::format("download: {} bytes at {} exceed the buffer's {}",
                                                dst.size(), src_offset, src.bytes())};
  }
  if (dst.empty()) return {};
  if (!src.mapped().empty()) {
    std::memcpy(dst.data(), src.mapped().data() + src_offset, dst.size());
    return {};
  }
  HADAL_ASSIGN(Buffer staging, allocate(dst.size(), MemoryKind::kReadback));
  HADAL_ASSIGN(Recorder recorder, Recorder::create(*this));
  HADAL_TRY(recorder.copy(src, src_offset, staging, 0, dst.size()));
  HADAL_TRY(recorder.end());
  HADAL_TRY(run(recorder));
  std::memcpy(dst.data(), staging.mapped().data(), dst.size());
  return {};
}

Status Device::save_pipeline_cache() const {
  if (impl_->pipeline_cache_file.empty() || !impl_->pipeline_cache) return {};
  size_t bytes = 0;
  HADAL_TRY(vk::to_status(
      impl_->table.GetPipelineCacheData(impl_->device, impl_->pipeline_cache, &bytes, nullptr),
      "device: vkGetPipelineCacheData"));
  std::vector<char> blob(bytes);
  HADAL_TRY(vk::to_status(
      impl_->table.GetPipelineCacheData(impl_->device, impl_->pipeline_cache, &bytes, blob.data()),
      "device: vkGetPipelineCacheData"));
  std::error_code error;
  const auto& file = impl_->pipeline_cache_file;
  std::filesystem::create_directories(file.parent_path(), error);
  // Written beside, under a name of this process, and renamed: a reader never sees half a file.
  const auto partial = std::filesystem::path(file).concat(fmt::format(".{}.partial", getpid()));
  std::ofstream out(partial, std::ios::binary);
  out.write(blob.data(), std::streamsize(bytes));
  out.close();
  error.clear();
  if (out) std::filesystem::rename(partial, file, error);
  if (out && !error) return {};
  std::error_code ignored;
  std::filesystem::remove(partial, ignored);
  return {Errc::kIo, fmt::format("{}: cannot be written", file.string())};
}

}  // namespace hadal
