// Caps of a borrowed device: an optional feature is usable where the host's VkDeviceCreateInfo
// turns it on, and nowhere else.
#include "vk/optional_features.h"

#include <gtest/gtest.h>

namespace hadal::test {
namespace {

Caps everything() {
  Caps caps = minimum_caps(32);
  caps.subgroup_size_control = caps.vulkan_memory_model = caps.shader_float16 = true;
  caps.shader_float8 = caps.cooperative_matrix = caps.float8_cooperative_matrix = true;
  caps.external_memory_host = true;
  caps.host_import_alignment = 4096;
  caps.coop_matrix_shapes = {{16, 16, 16, 0, 0, 1, 1}};
  return caps;
}

Caps borrowed(const VkDeviceCreateInfo* info, uint32_t api_version = VK_API_VERSION_1_3) {
  Caps caps = everything();
  vk::keep_usable(vk::enabled_features(info, api_version), caps);
  return caps;
}

TEST(OptionalFeaturesHost, ADeviceWithoutCreateInfoHasNone) {
  const VkDeviceCreateInfo empty{};
  for (const Caps& caps : {borrowed(nullptr), borrowed(&empty)}) {
    EXPECT_FALSE(caps.subgroup_size_control || caps.vulkan_memory_model || caps.shader_float16);
    EXPECT_FALSE(caps.shader_float8 || caps.cooperative_matrix || caps.float8_cooperative_matrix);
    EXPECT_FALSE(caps.external_memory_host);
    EXPECT_EQ(caps.host_import_alignment, 0u);
    EXPECT_TRUE(caps.coop_matrix_shapes.empty());
  }
}

#if defined(VK_KHR_cooperative_matrix) && defined(VK_EXT_shader_float8)
TEST(OptionalFeaturesHost, WhatTheHostEnabledIsUsable) {
  // The chain that Device::create makes is read back whole.
  const Caps all = everything();
  VkPhysicalDeviceVulkan12Features v12{};
  v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  v12.shaderFloat16 = v12.vulkanMemoryModel = v12.vulkanMemoryModelDeviceScope = VK_TRUE;
  const vk::OptionalChain chain(all, &v12);
  VkDeviceCreateInfo info{};
  info.pNext = chain.head;
  info.enabledExtensionCount = uint32_t(chain.extensions.size());
  info.ppEnabledExtensionNames = chain.extensions.data();
  const Caps caps = borrowed(&info);
  EXPECT_TRUE(caps.subgroup_size_control && caps.vulkan_memory_model && caps.shader_float16);
  EXPECT_TRUE(caps.shader_float8 && caps.cooperative_matrix && caps.float8_cooperative_matrix);
  EXPECT_TRUE(caps.external_memory_host);
  EXPECT_EQ(caps.host_import_alignment, 4096u);
  EXPECT_EQ(caps.coop_matrix_shapes.size(), 1u);

  // A feature bit without its extension, or matrices without the memory model, are not usable.
  info.enabledExtensionCount = 0;
  EXPECT_FALSE(borrowed(&info).cooperative_matrix);
  EXPECT_FALSE(borrowed(&info).shader_float8);
  EXPECT_TRUE(borrowed(&info).subgroup_size_control);  // core in 1.3
  EXPECT_FALSE(borrowed(&info, VK_API_VERSION_1_2).subgroup_size_control);
  info.enabledExtensionCount = uint32_t(chain.extensions.size());
  v12.vulkanMemoryModelDeviceScope = VK_FALSE;
  EXPECT_FALSE(borrowed(&info).cooperative_matrix);
  EXPECT_FALSE(borrowed(&info).float8_cooperative_matrix);
}
#endif

TEST(OptionalFeaturesHost, TheChainHoldsOnlyWhatCapsSays) {
  int tail = 0;
  const vk::OptionalChain none(minimum_caps(), &tail);
  EXPECT_EQ(none.head, &tail);
  EXPECT_TRUE(none.extensions.empty());
}

}  // namespace
}  // namespace hadal::test
