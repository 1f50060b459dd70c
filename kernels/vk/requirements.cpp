#include "hadal/requirements.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "feature_table.h"
#include "hadal/device.h"
#include "instance.h"

namespace hadal {
namespace {

// What the device offers to a host of query.api_version.
Result<Caps> offered_caps(const DeviceQuery& query) {
  if (!query.get_instance_proc_addr || !query.instance || !query.physical_device) {
    return Status(Errc::kInvalidArgument,
                  "requirements: get_instance_proc_addr, instance and physical_device must be set");
  }
  vk::InstanceTable table;
  if (!table.load(query.get_instance_proc_addr, query.instance)) {
    return Status(Errc::kUnsupported, "requirements: the instance lacks functions of Vulkan 1.1");
  }
  const uint32_t limit = query.api_version ? query.api_version : VK_API_VERSION_1_2;
  return vk::query_caps(table, query.get_instance_proc_addr, query.instance, query.physical_device,
                        limit);
}

}  // namespace

uint32_t device_feature_count() {
  return uint32_t(vk::feature_table().size());
}

Result<std::vector<DeviceFeature>> device_features(const DeviceQuery& query) {
  HADAL_ASSIGN(const Caps caps, offered_caps(query));
  std::vector<DeviceFeature> features;
  for (const vk::FeatureBit& bit : vk::feature_table()) {
    features.push_back({bit.name, bit.structure, vk::extension_of(bit, caps.api_version),
                        bit.purpose, bit.required, caps.*bit.usable});
  }
  return features;
}

Result<std::vector<const char*>> device_extensions(const DeviceQuery& query) {
  HADAL_ASSIGN(const Caps caps, offered_caps(query));
  std::vector<const char*> names;
  for (const vk::FeatureBit& bit : vk::feature_table()) {
    const char* name = vk::extension_of(bit, caps.api_version);
    if (!name || !(caps.*bit.usable)) continue;
    const auto same = [&](std::string_view other) { return other == name; };
    if (std::none_of(names.begin(), names.end(), same)) names.push_back(name);
  }
  return names;
}

Status enable_device_features(const DeviceQuery& query, void* chain) {
  HADAL_ASSIGN(const Caps caps, offered_caps(query));
  if (const std::string missing = missing_requirement(caps); !missing.empty()) {
    return {Errc::kUnsupported,
            fmt::format("requirements: {} lacks {}", caps.device_name, missing)};
  }
  for (const vk::FeatureBit& bit : vk::feature_table()) {
    VkBool32* on = vk::find_bit(chain, bit);
    if (!on && bit.required) {
      return {Errc::kInvalidArgument,
              fmt::format("requirements: chain must hold a {} for {}", bit.structure, bit.name)};
    }
    if (on && caps.*bit.usable) *on = VK_TRUE;
  }
  return {};
}

}  // namespace hadal
