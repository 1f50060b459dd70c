// What every kernel of the C ABI uses: contexts, plans, operands by name. Private.
#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <memory>
#include <string>
#include <string_view>

#include "entry.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "hadal/types.h"

struct hadal_context {
  std::unique_ptr<hadal::Device> device;
  PFN_vkGetBufferDeviceAddress get_buffer_device_address = nullptr;
  VkDevice handle = VK_NULL_HANDLE;
  hadal_log_fn log = nullptr;
  void* log_user = nullptr;
  std::atomic<uint32_t> plans = 0;

  void say(hadal_log_level level, const char* text) const {
    if (log) log(log_user, level, text);
  }
};

struct hadal_plan {
  explicit hadal_plan(hadal_context& owner) : context(owner) { ++context.plans; }
  virtual ~hadal_plan() { --context.plans; }
  hadal_plan(const hadal_plan&) = delete;
  hadal_plan& operator=(const hadal_plan&) = delete;

  hadal_context& context;
  const char* kernel = "";
  std::string description;
  uint64_t scratch_bytes = 0;
  // hadal_grouped_gemm_tiling; groups_x 0: not a plan of a tile list.
  uint32_t tile_m = 0, groups_x = 0, max_tiles = 0;
};

namespace hadal::capi {

// A plan of one kernel: the desc's sizes, what was chosen for them, and its pipelines.
template <class Shape, class Kernel>
struct KernelPlan final : hadal_plan {
  KernelPlan(hadal_context& owner, const Shape& largest, Kernel made)
      : hadal_plan(owner), shape(largest), kernel_object(std::move(made)) {}
  Shape shape;
  Kernel kernel_object;
};

// 0 in a desc keeps the tight stride that is there.
inline void set_stride(uint32_t& stride, uint32_t wanted) {
  if (wanted != 0) stride = wanted;
}

// A product as a size; one that does not fit saturates, and so fails the kernel's own check.
[[nodiscard]] constexpr uint32_t product(uint64_t a, uint64_t b) {
  return a * b > UINT32_MAX || (b && a > UINT64_MAX / b) ? UINT32_MAX : uint32_t(a * b);
}
// Whether round_up(value, 16) and what is derived from it stay inside 32 bits.
[[nodiscard]] Status check_size(std::string_view kernel, std::string_view name, uint32_t value);

// One call of a _record function: collects operands by name, the first failure wins.
class Call {
 public:
  Call(const hadal_plan& plan, VkCommandBuffer commands) : plan_(plan), commands_(commands) {}

  // Sets `rows` (the desc's most) to the call's number.
  void rows(std::string_view name, uint32_t of_call, uint32_t& rows);
  // The operand's address; 0 where it is absent and not needed.
  [[nodiscard]] DeviceAddress operand(std::string_view name, const hadal_range& range,
                                      uint32_t alignment, bool needed);
  // As operand, for indirect arguments: a host's buffer with its offset.
  struct Indirect {
    Buffer buffer;
    uint64_t offset = 0;
  };
  [[nodiscard]] Indirect indirect(const hadal_range& range, bool needed);
  void fail(std::string_view text);
  [[nodiscard]] const Status& status() const { return status_; }

  // Records with `kernel.record(recorder, shape, args)` unless something failed.
  template <class Shape, class Kernel, class Args>
  [[nodiscard]] Status record(const KernelPlan<Shape, Kernel>& plan, const Shape& shape,
                              const Args& args) {
    HADAL_TRY(status_);
    RecorderOptions options;
    options.operands = {operands_.data(), count_};
    HADAL_ASSIGN(Recorder recorder, Recorder::borrow(*plan_.context.device, commands_, options));
    HADAL_TRY(plan.kernel_object.record(recorder, shape, args));
    return recorder.end();
  }

 private:
  void add(std::string_view name, DeviceAddress address, uint64_t bytes);
  const hadal_plan& plan_;
  VkCommandBuffer commands_;
  std::array<NamedRange, 12> operands_{};
  size_t count_ = 0;
  Status status_;
};

// The shell of every hadal_<kernel>_plan. `make(Device&, const Desc&)` returns a Result of a
// unique_ptr to the kernel's plan.
template <class Desc, class Make>
hadal_status make_plan(const char* kernel, hadal_context* context, const Desc* desc,
                       hadal_plan** plan, hadal_error* error, Make make) noexcept {
  return guarded(error, [&]() -> Status {
    if (!context) return invalid(kernel, "context must not be null");
    if (!plan) return invalid(kernel, "plan must not be null");
    Desc known{};
    HADAL_TRY(read_struct(kernel, "desc", desc, known));
    HADAL_ASSIGN(auto made, make(*context, known));
    made->kernel = kernel;
    context->say(HADAL_LOG_INFO, made->description.c_str());
    *plan = made.release();
    return {};
  });
}

// The usual `make`: check, choose, create.
template <class Kernel, class Shape, class Check, class Choose>
[[nodiscard]] Result<std::unique_ptr<KernelPlan<Shape, Kernel>>> plan_kernel(hadal_context& context,
                                                                             const Shape& shape,
                                                                             Check check,
                                                                             Choose choose) {
  const Caps& caps = context.device->caps();
  HADAL_TRY(check(shape, caps));
  const auto config = choose(shape, caps);
  HADAL_ASSIGN(Kernel made, Kernel::create(*context.device, config));
  auto plan = std::make_unique<KernelPlan<Shape, Kernel>>(context, shape, std::move(made));
  plan->description = config.to_string();
  return plan;
}

// The shell of every hadal_<kernel>_record. `fill(Call&, const Plan&, const Args&)` returns the
// Status of its Call::record.
template <class Plan, class Args, class Fill>
hadal_status record_plan(const char* kernel, const hadal_plan* plan, VkCommandBuffer commands,
                         const Args* args, hadal_error* error, Fill fill) noexcept {
  return guarded(error, [&]() -> Status {
    if (!plan) return invalid(kernel, "plan must not be null");
    if (std::string_view(plan->kernel) != kernel) {
      return invalid(kernel,
                     fmt::format("plan must be of {}, got one of {}", kernel, plan->kernel));
    }
    if (!commands) return invalid(kernel, "commands must not be null");
    Args known{};
    HADAL_TRY(read_struct(kernel, "args", args, known));
    Call call(*plan, commands);
    return fill(call, static_cast<const Plan&>(*plan), known);
  });
}

}  // namespace hadal::capi
