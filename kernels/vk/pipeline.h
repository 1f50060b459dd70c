// Compute pipelines: a SPIR-V module by name, specialisation constants by id, one push-constant
// block.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "dispatch_table.h"
#include "hadal/status.h"

namespace hadal {
class Device;
}

namespace hadal::vk {

struct DeviceImpl;

struct SpecConstant {
  uint32_t id = 0;     // kXxxSpecYyy of the kernel's layout header
  uint32_t value = 0;  // uint and bool constants only; floats travel in push constants
  auto operator<=>(const SpecConstant&) const = default;
};

// Allocates nothing: a kernel makes one for every record().
struct PipelineKey {
  static constexpr size_t kMaxConstants = 16;
  std::string_view module;  // EmbeddedModule::name, or a caller's while it looks up
  std::array<SpecConstant, kMaxConstants> constants{};
  uint32_t constant_count = 0;
  uint32_t push_bytes = 0;
  uint32_t subgroup_size = 0;
  auto operator<=>(const PipelineKey&) const = default;
};

class Pipeline {
 public:
  // The device's pipeline for the key, created at the first call. It lives as long as the device.
  // `workgroup_x` is appended as constant id 0 (see shaders/layout/interop.h); at most
  // PipelineKey::kMaxConstants - 1 others. `subgroup_size` other than 0 demands full subgroups of
  // that size (Caps::subgroup_size_control). Errors: kUnsupported for a module that this build's
  // shader compiler could not make. Thread-safe.
  [[nodiscard]] static Result<const Pipeline*> get(Device& device, std::string_view module,
                                                   uint32_t workgroup_x,
                                                   std::initializer_list<SpecConstant> constants,
                                                   uint32_t push_bytes,
                                                   uint32_t subgroup_size = 0) {
    return get(device, module, workgroup_x, std::span(constants.begin(), constants.size()),
               push_bytes, subgroup_size);
  }
  [[nodiscard]] static Result<const Pipeline*> get(Device& device, std::string_view module,
                                                   uint32_t workgroup_x,
                                                   std::span<const SpecConstant> constants,
                                                   uint32_t push_bytes, uint32_t subgroup_size = 0);
  Pipeline(DeviceImpl& device, VkPipelineLayout layout, VkPipeline handle)
      : device_(device), layout_(layout), handle_(handle) {}
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  [[nodiscard]] VkPipelineLayout layout() const { return layout_; }
  [[nodiscard]] VkPipeline handle() const { return handle_; }

 private:
  DeviceImpl& device_;
  VkPipelineLayout layout_;
  VkPipeline handle_;
};

// A SPIR-V module compiled into the library (see shaders/CMakeLists.txt).
struct EmbeddedModule {
  std::string_view name;
  std::span<const uint32_t> words;
};
[[nodiscard]] std::span<const EmbeddedModule> embedded_modules();
// Whether this build has the module: shaders of newer extensions need a newer glslc.
[[nodiscard]] bool has_module(std::string_view name);

}  // namespace hadal::vk
