// What a Vulkan device can do, as plain data: check() and choose() of every kernel are pure
// functions of a shape and of this struct, so that they run, and are tested, without any device.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace hadal {

// One shape of VK_KHR_cooperative_matrix, as the driver lists it. Component types are
// VkComponentTypeKHR values, of which these are used.
inline constexpr uint32_t kCoopFloat16 = 0, kCoopFloat32 = 1, kCoopFloat8E4m3 = 1000491002;
struct CoopMatrixShape {
  uint32_t m = 0, n = 0, k = 0;
  uint32_t a_type = 0, b_type = 0, c_type = 0, result_type = 0;
};

struct Caps {
  // Identity, for people and for cache keys; never for decisions (see vk/quirks.h for the
  // exception).
  std::string device_name;
  std::string driver_name;  // e.g. "llvmpipe"
  std::string driver_info;  // e.g. "Mesa 26.1.6 (LLVM 21.1.8)"
  uint32_t vendor_id = 0, device_id = 0, driver_version = 0, api_version = 0;
  std::array<uint8_t, 16> pipeline_cache_uuid{};
  bool is_cpu = false;       // VK_PHYSICAL_DEVICE_TYPE_CPU
  bool is_discrete = false;  // VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU

  // Required by every kernel; Device::create refuses a device that lacks one and names it.
  bool buffer_device_address = false;
  bool shader_int64 = false;
  bool storage_buffer_8bit = false;
  bool storage_buffer_16bit = false;
  bool scalar_block_layout = false;
  bool timeline_semaphore = false;
  bool subgroup_arithmetic = false;  // basic and arithmetic operations in compute shaders

  // Limits.
  uint32_t subgroup_size = 0;  // the device's default
  uint32_t min_subgroup_size = 0, max_subgroup_size = 0;
  uint32_t max_workgroup_invocations = 0;
  std::array<uint32_t, 3> max_workgroup_size{};
  std::array<uint32_t, 3> max_workgroup_count{};
  uint32_t max_shared_memory_bytes = 0;
  uint32_t max_push_constant_bytes = 0;
  uint64_t max_allocation_bytes = 0;
  uint64_t max_buffer_bytes = 0;
  uint64_t device_heap_bytes = 0;       // largest DEVICE_LOCAL heap
  uint64_t device_heap_free_bytes = 0;  // by VK_EXT_memory_budget; the heap's size without it
  double timestamp_period_ns = 0.0;     // 0: no timestamps on the compute queue

  // Optional paths. Each field means usable: the feature bit is set, and on in a Device's caps()
  // (a borrowed device: BorrowedDevice::create_info). list_devices() shows what would be.
  bool subgroup_size_control = false;    // a pipeline may demand full subgroups of a size
  uint32_t max_workgroup_subgroups = 0;  // of such a pipeline; 0 without
  bool vulkan_memory_model = false;      // with device scope
  bool memory_budget = false;
  bool external_memory_host = false;
  uint64_t host_import_alignment = 0;  // of pointer and size in Device::import_host; 0 without it
  bool shader_float16 = false;
  bool shader_float8 = false;
  bool cooperative_matrix = false;                  // with the memory model, in compute shaders
  bool float8_cooperative_matrix = false;           // float8 as element type of one
  std::vector<CoopMatrixShape> coop_matrix_shapes;  // of subgroup scope, not saturating
  // Listed by the driver, not enabled: no kernel uses them yet.
  bool shader_bfloat16 = false;
  bool cooperative_matrix2 = false;

  // Sums spell out how they round: explicit fma() where this is set, else a multiply and an add
  // that the compiler may not contract. One choice per driver (see vk/quirks.h), part of the bits.
  bool use_fma = false;
  // Values that are uniform in a subgroup live in scalar registers and are loaded once: a CPU
  // driver then runs best on shaders that keep all but one operand uniform (see vk/quirks.h).
  bool scalar_uniforms = false;
  // The tables that paths of CPU drivers decode e4m3 by lie, or may be put, in device memory; not
  // on a borrowed device without a queue whose host gave none (BorrowedDevice::constants).
  bool device_constants = true;
};

// The smallest device that hadal supports (Vulkan 1.2 minimum limits plus the required features,
// and the given subgroup size): for tests and for choosing without a device.
[[nodiscard]] Caps minimum_caps(uint32_t subgroup_size = 8);

}  // namespace hadal
