// Records dispatches and barriers into a command buffer: its own, or one that the host owns.
// Every dispatch declares the address ranges that it reads and writes. In checking mode a hazard
// without a barrier between is an error, and the dispatches between two barriers can be recorded in
// reverse order: neither validation layers nor a CPU driver can find a missing barrier by
// themselves.
#pragma once

#include <vulkan/vulkan_core.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/status.h"

namespace hadal {

class Device;
namespace vk {
class Pipeline;
}

// An operand as a host names it, of `range.bytes` bytes.
struct NamedRange {
  std::string_view name;
  DeviceRange range;
};

struct RecorderOptions {
  bool check_hazards = false;
  bool reverse_between_barriers = false;
  bool timestamps = false;  // one pair per dispatch; read with Recorder::timings() after run()
  uint32_t queue = 0;       // that the recorder is submitted to, below Device::queue_count()
  // A range that a dispatch declares and that begins in one of these must end in one of them, or
  // the dispatch is kInvalidArgument and names the operand. Kept by reference.
  std::span<const NamedRange> operands;
};

// Duration of one dispatch on the device.
struct DispatchTiming {
  std::string label;  // the kernel's word, e.g. "fp8_gemm"
  double ns = 0.0;
  double begin_ns = 0.0;  // on the device's own clock, whose zero is anything
};

// Not thread-safe; different recorders may be used from different threads.
class Recorder {
 public:
  // Records into a command buffer of its own, which Device::submit and run take, any number of
  // times. Errors: kInvalidArgument for a queue that the device does not have.
  [[nodiscard]] static Result<Recorder> create(Device& device, const RecorderOptions& options = {});
  // Records into the host's command buffer, which must be in the recording state. hadal emits no
  // barrier before its first read nor after its last write: the host orders those.
  [[nodiscard]] static Result<Recorder> borrow(Device& device, VkCommandBuffer command_buffer,
                                               const RecorderOptions& options = {});
  Recorder(Recorder&&) noexcept;
  Recorder& operator=(Recorder&&) noexcept;
  ~Recorder();

  // Forgets what was recorded and starts anew (own command buffer only).
  [[nodiscard]] Status reset();

  // Everything before is visible to everything after (compute to compute, copies, indirect sizes).
  void barrier();

  // Finishes recording. Errors: those of earlier calls that could not report (none are lost).
  [[nodiscard]] Status end();

  // For kernels. `groups` of any dimension may be 0: then nothing is recorded.
  struct Dispatch {
    const vk::Pipeline* pipeline = nullptr;
    std::string_view label;  // a literal: it is kept by reference
    std::span<const std::byte> push;
    std::array<uint32_t, 3> groups{};  // ignored when indirect.address != 0
    DeviceRange indirect;  // VkDispatchIndirectCommand, 12 bytes, inside `indirect_buffer`
    const Buffer* indirect_buffer = nullptr;
    std::span<const DeviceRange> reads;
    std::span<const DeviceRange> writes;
  };
  [[nodiscard]] Status dispatch(const Dispatch& dispatch);

  // Copies between buffers of this device; ranges are checked and tracked like a dispatch's.
  [[nodiscard]] Status copy(const Buffer& src, uint64_t src_offset, const Buffer& dst,
                            uint64_t dst_offset, uint64_t bytes);
  // Fills with a repeated 32-bit value; offset and bytes are multiples of 4.
  [[nodiscard]] Status fill(const Buffer& dst, uint64_t dst_offset, uint64_t bytes, uint32_t value);

  [[nodiscard]] uint32_t queue() const noexcept;
  [[nodiscard]] uint32_t dispatch_count() const noexcept;
  [[nodiscard]] VkCommandBuffer command_buffer() const noexcept;

  // After Device::run, when options.timestamps: one entry per dispatch in recording order.
  [[nodiscard]] Result<std::vector<DispatchTiming>> timings() const;

 private:
  struct Impl;
  explicit Recorder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal
