// Every feature bit that hadal asks a device for, and the structures of a pNext chain that have it.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "hadal/caps.h"
#include "optional_features.h"

namespace hadal::vk {

struct FeatureBit {
  struct Place {
    uint32_t structure_type = 0;  // VkStructureType; 0 (APPLICATION_INFO, never in a chain): none
    size_t offset = 0;            // of the VkBool32
  };
  const char* name = nullptr;
  const char* structure = nullptr;  // of the first place
  const char* extension = nullptr;  // null: core in Vulkan 1.2
  bool core_in_13 = false;          // needs no extension from Vulkan 1.3 on
  const char* purpose = nullptr;
  bool required = false;
  bool Caps::*usable = nullptr;
  bool OptionalFeatures::*optional = nullptr;  // null: not optional
  std::array<Place, 2> places{};
};

[[nodiscard]] std::span<const FeatureBit> feature_table();
[[nodiscard]] const char* extension_of(const FeatureBit& bit, uint32_t api_version);

// The bit of the first structure in `chain` that has it; null without one.
[[nodiscard]] VkBool32* find_bit(void* chain, const FeatureBit& bit);
// Whether a host's VkDeviceCreateInfo turns it on; extensions are not looked at.
[[nodiscard]] bool is_on(const VkDeviceCreateInfo& info, const FeatureBit& bit);

// The first required feature that `info` does not turn on, or null. timelineSemaphore counts for a
// device that submits.
[[nodiscard]] const FeatureBit* first_required_off(const VkDeviceCreateInfo& info, bool submits);

}  // namespace hadal::vk
