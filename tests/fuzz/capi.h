// A fuzz target per entry point of the C ABI that takes sizes: a desc and args made of the bytes,
// refused with a status and a message, or planned and recorded into a command buffer that is never
// submitted. What may not happen is a crash, a validation message, or an error without a text.
#pragma once

#include <vector>

#include "consumer/vulkan_host.h"
#include "fuzz/bytes.h"
#include "fuzz/seeds.h"

namespace hadal::fuzz {

// What the calls work with; the host's.
struct CapiWorld {
  hadal_device_query query{};
  hadal_context* context = nullptr;
  const host_buffer* memory = nullptr;  // of 64 KiB
  VkCommandBuffer commands = VK_NULL_HANDLE;
};

// Of one run: accepted where a call was recorded.
struct CapiTarget {
  const char* name;
  Outcome (*run)(const CapiWorld& world, Bytes bytes);
};
[[nodiscard]] std::span<const CapiTarget> capi_targets();

// Bytes that a run uses at most, about.
inline constexpr size_t kCapiBytes = 1600;
// The target's kept seeds, behind 50 of random bytes, the same ones in every run.
[[nodiscard]] std::vector<Seed> capi_seeds(const std::string& target);

}  // namespace hadal::fuzz
