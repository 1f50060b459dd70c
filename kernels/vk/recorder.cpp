#include "hadal/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "device_impl.h"
#include "hadal/device.h"
#include "pipeline.h"

namespace hadal {

namespace {

constexpr size_t kMaxPushBytes = 128;  // what every device has, and all that a kernel may use
constexpr uint32_t kMaxTimedDispatches = 4096;  // one query pool; later dispatches go untimed

struct Access {
  DeviceRange range;
  bool write = false;
  std::string label;
};

bool overlap(const DeviceRange& a, const DeviceRange& b) {
  return a.bytes != 0 && b.bytes != 0 && a.address < b.address + b.bytes &&
         b.address < a.address + a.bytes;
}

// RecorderOptions::operands. An end that wraps around lies outside.
Status check_operands(std::span<const NamedRange> operands, std::span<const DeviceRange> declared,
                      std::string_view label) {
  for (const DeviceRange& r : declared) {
    const NamedRange* around = nullptr;
    bool inside = false;
    for (const NamedRange& o : operands) {
      if (r.bytes == 0 || r.address - o.range.address >= o.range.bytes) continue;
      around = &o;
      inside = inside || r.bytes <= o.range.bytes - (r.address - o.range.address);
    }
    if (!around || inside) continue;
    return {Errc::kInvalidArgument,
            fmt::format("{}: {} must hold {} bytes, got {}", label, around->name,
                        r.bytes + (r.address - around->range.address), around->range.bytes)};
  }
  return {};
}

// One recorded command, kept until the next barrier when the order is to be reversed. It owns what
// it holds and allocates nothing: a decode step records a hundred.
struct Command {
  enum class Kind { kDispatch, kIndirect, kCopy, kFill } kind = Kind::kDispatch;
  const vk::Pipeline* pipeline = nullptr;
  std::string_view label;  // a literal, as Recorder::Dispatch asks
  std::array<std::byte, kMaxPushBytes> push;
  uint32_t push_bytes = 0;
  std::array<uint32_t, 3> groups{};
  VkBuffer src = VK_NULL_HANDLE, dst = VK_NULL_HANDLE;
  uint64_t src_offset = 0, dst_offset = 0, bytes = 0;
  uint32_t value = 0;
};

}  // namespace

struct Recorder::Impl {
  vk::DeviceImpl* device = nullptr;
  RecorderOptions options;
  bool owns = false;
  VkCommandPool pool = VK_NULL_HANDLE;
  VkCommandBuffer command_buffer = VK_NULL_HANDLE;
  VkQueryPool queries = VK_NULL_HANDLE;
  const vk::Pipeline* bound = nullptr;
  uint32_t dispatches = 0;
  std::vector<Access> accesses;  // since the last barrier, in checking mode
  std::vector<Command> pending;  // since the last barrier, when the order is reversed
  std::vector<std::string_view> timed_labels;

  ~Impl();
  [[nodiscard]] Status begin();
  [[nodiscard]] Status track(std::span<const DeviceRange> reads,
                             std::span<const DeviceRange> writes, std::string_view label);
  void add(const Command& command);
  void emit(const Command& command);
  void emit_barrier();
  void flush();
};

Recorder::Impl::~Impl() {
  if (!device) return;
  if (queries) device->table.DestroyQueryPool(device->device, queries, device->callbacks());
  if (pool) device->table.DestroyCommandPool(device->device, pool, device->callbacks());
}

Status Recorder::Impl::begin() {
  bound = nullptr;
  dispatches = 0;
  accesses.clear();
  pending.clear();
  timed_labels.clear();
  if (owns) {
    VkCommandBufferBeginInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
    HADAL_TRY(vk::to_status(device->table.BeginCommandBuffer(command_buffer, &info),
                            "recorder: vkBeginCommandBuffer"));
    emit_barrier();  // after what was submitted to the queue before, and what was waited for
  }
  if (queries) device->table.CmdResetQueryPool(command_buffer, queries, 0, 2 * kMaxTimedDispatches);
  return {};
}

Status Recorder::Impl::track(std::span<const DeviceRange> reads,
                             std::span<const DeviceRange> writes, std::string_view label) {
  if (!options.check_hazards) return {};
  const auto conflict = [&](const DeviceRange& range, bool write) -> Status {
    for (const Access& earlier : accesses) {
      if (!(write || earlier.write) || !overlap(range, earlier.range)) continue;
      return {Errc::kHazard,
              fmt::format("{}: {} [{:#x}, +{}) needs a barrier after {} {} [{:#x}, +{})", label,
                          write ? "write of" : "read of", range.address, range.bytes, earlier.label,
                          earlier.write ? "wrote" : "read", earlier.range.address,
                          earlier.range.bytes)};
    }
    return {};
  };
  for (const DeviceRange& r : reads) HADAL_TRY(conflict(r, false));
  for (const DeviceRange& r : writes) HADAL_TRY(conflict(r, true));
  for (const DeviceRange& r : reads) accesses.push_back({r, false, std::string(label)});
  for (const DeviceRange& r : writes) accesses.push_back({r, true, std::string(label)});
  return {};
}

void Recorder::Impl::add(const Command& command) {
  if (options.reverse_between_barriers) {
    pending.push_back(command);
  } else {
    emit(command);
  }
}

void Recorder::Impl::emit(const Command& c) {
  const vk::DeviceTable& vk = device->table;
  if (c.kind == Command::Kind::kCopy) {
    const VkBufferCopy region{c.src_offset, c.dst_offset, c.bytes};
    vk.CmdCopyBuffer(command_buffer, c.src, c.dst, 1, &region);
    return;
  }
  if (c.kind == Command::Kind::kFill) {
    vk.CmdFillBuffer(command_buffer, c.dst, c.dst_offset, c.bytes, c.value);
    return;
  }
  if (bound != c.pipeline) {
    vk.CmdBindPipeline(command_buffer, VK_PIPELINE_BIND_POINT_COMPUTE, c.pipeline->handle());
    bound = c.pipeline;
  }
  vk.CmdPushConstants(command_buffer, c.pipeline->layout(), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                      c.push_bytes, c.push.data());
  const bool timed = queries && timed_labels.size() < kMaxTimedDispatches;
  const uint32_t query = 2 * uint32_t(timed_labels.size());
  if (timed) {
    vk.CmdWriteTimestamp(command_buffer, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, query);
  }
  if (c.kind == Command::Kind::kIndirect) {
    vk.CmdDispatchIndirect(command_buffer, c.src, c.src_offset);
  } else {
    vk.CmdDispatch(command_buffer, c.groups[0], c.groups[1], c.groups[2]);
  }
  if (timed) {
    vk.CmdWriteTimestamp(command_buffer, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, query + 1);
    timed_labels.push_back(c.label);
  }
}

void Recorder::Impl::flush() {
  for (auto it = pending.rbegin(); it != pending.rend(); ++it) emit(*it);
  pending.clear();
}

Recorder::Recorder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Recorder::Recorder(Recorder&&) noexcept = default;
Recorder& Recorder::operator=(Recorder&&) noexcept = default;
Recorder::~Recorder() = default;

Result<Recorder> Recorder::create(Device& device, const RecorderOptions& options) {
  vk::DeviceImpl& d = device.impl();
  if (options.queue >= d.queues.count()) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("recorder: queue must be below the device's {}, got {}",
                              d.queues.count(), options.queue));
  }
  const vk::Queue& queue = d.queues[options.queue];
  auto impl = std::make_unique<Impl>();
  impl->device = &d;
  impl->options = options;
  impl->owns = true;
  VkCommandPoolCreateInfo pool{};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.queueFamilyIndex = queue.family;
  HADAL_TRY(vk::to_status(d.table.CreateCommandPool(d.device, &pool, d.callbacks(), &impl->pool),
                          "recorder: vkCreateCommandPool"));
  VkCommandBufferAllocateInfo allocate{};
  allocate.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  allocate.commandPool = impl->pool;
  allocate.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  allocate.commandBufferCount = 1;
  HADAL_TRY(
      vk::to_status(d.table.AllocateCommandBuffers(d.device, &allocate, &impl->command_buffer),
                    "recorder: vkAllocateCommandBuffers"));
  if (options.timestamps && d.caps.timestamp_period_ns > 0 && queue.has_timestamps) {
    VkQueryPoolCreateInfo query{};
    query.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO;
    query.queryType = VK_QUERY_TYPE_TIMESTAMP;
    query.queryCount = 2 * kMaxTimedDispatches;
    HADAL_TRY(
        vk::to_status(d.table.CreateQueryPool(d.device, &query, d.callbacks(), &impl->queries),
                      "recorder: vkCreateQueryPool"));
  }
  HADAL_TRY(impl->begin());
  return Recorder(std::move(impl));
}

Result<Recorder> Recorder::borrow(Device& device, VkCommandBuffer command_buffer,
                                  const RecorderOptions& options) {
  if (!command_buffer) {
    return Status(Errc::kInvalidArgument, "recorder: command_buffer must not be null");
  }
  auto impl = std::make_unique<Impl>();
  impl->device = &device.impl();
  impl->options = options;
  impl->options.timestamps = false;
  impl->options.queue = 0;
  impl->command_buffer = command_buffer;
  HADAL_TRY(impl->begin());
  return Recorder(std::move(impl));
}

Status Recorder::reset() {
  if (!impl_->owns)
    return {Errc::kInvalidArgument, "recorder: a borrowed command buffer is the host's to reset"};
  HADAL_TRY(
      vk::to_status(impl_->device->table.ResetCommandPool(impl_->device->device, impl_->pool, 0),
                    "recorder: vkResetCommandPool"));
  return impl_->begin();
}

void Recorder::barrier() {
  impl_->flush();
  impl_->accesses.clear();
  impl_->emit_barrier();
}

void Recorder::Impl::emit_barrier() {
  VkMemoryBarrier memory{};
  memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  memory.srcAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                         VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  memory.dstAccessMask = memory.srcAccessMask | VK_ACCESS_INDIRECT_COMMAND_READ_BIT;
  const VkPipelineStageFlags work =
      VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
  device->table.CmdPipelineBarrier(command_buffer, work, work | VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT,
                                   0, 1, &memory, 0, nullptr, 0, nullptr);
}

Status Recorder::end() {
  impl_->flush();
  if (!impl_->owns) return {};
  // Results are read by the host after the wait.
  VkMemoryBarrier memory{};
  memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
  memory.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  impl_->device->table.CmdPipelineBarrier(
      impl_->command_buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
      VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &memory, 0, nullptr, 0, nullptr);
  return vk::to_status(impl_->device->table.EndCommandBuffer(impl_->command_buffer),
                       "recorder: vkEndCommandBuffer");
}

Status Recorder::dispatch(const Dispatch& d) {
  const bool indirect = d.indirect_buffer != nullptr;
  if (!indirect && (d.groups[0] == 0 || d.groups[1] == 0 || d.groups[2] == 0)) return {};
  const auto& limit = impl_->device->caps.max_workgroup_count;
  for (int i = 0; i < 3 && !indirect; ++i) {
    if (d.groups[i] <= limit[i]) continue;
    return {Errc::kInvalidArgument,
            fmt::format("{}: workgroups in dimension {} must be at most {}, got {}", d.label, i,
                        limit[i], d.groups[i])};
  }
  HADAL_TRY(check_operands(impl_->options.operands, d.reads, d.label));
  HADAL_TRY(check_operands(impl_->options.operands, d.writes, d.label));
  if (indirect) {
    HADAL_TRY(check_operands(impl_->options.operands, {&d.indirect, 1}, d.label));
  }
  if (impl_->options.check_hazards) {
    std::vector<DeviceRange> reads(d.reads.begin(), d.reads.end());
    if (indirect) reads.push_back(d.indirect);
    HADAL_TRY(impl_->track(reads, d.writes, d.label));
  }
  Command command;
  command.kind = indirect ? Command::Kind::kIndirect : Command::Kind::kDispatch;
  command.pipeline = d.pipeline;
  command.label = d.label;
  assert(d.push.size() <= kMaxPushBytes);
  std::copy(d.push.begin(), d.push.end(), command.push.begin());
  command.push_bytes = uint32_t(d.push.size());
  command.groups = d.groups;
  if (indirect) {
    command.src = vk::buffer_handle(*d.indirect_buffer);
    command.src_offset = d.indirect.address - d.indirect_buffer->address();
  }
  ++impl_->dispatches;
  impl_->add(command);
  return {};
}

Status Recorder::copy(const Buffer& src, uint64_t src_offset, const Buffer& dst,
                      uint64_t dst_offset, uint64_t bytes) {
  if (src_offset > src.bytes() || bytes > src.bytes() - src_offset || dst_offset > dst.bytes() ||
      bytes > dst.bytes() - dst_offset) {
    return {Errc::kInvalidArgument,
            fmt::format("copy: {} bytes from {} of {} to {} of {} must lie inside both", bytes,
                        src_offset, src.bytes(), dst_offset, dst.bytes())};
  }
  if (bytes == 0) return {};
  const DeviceRange read{src.address() + src_offset, bytes};
  const DeviceRange write{dst.address() + dst_offset, bytes};
  HADAL_TRY(impl_->track({&read, 1}, {&write, 1}, "copy"));
  Command command;
  command.kind = Command::Kind::kCopy;
  command.src = vk::buffer_handle(src);
  command.dst = vk::buffer_handle(dst);
  command.src_offset = src_offset;
  command.dst_offset = dst_offset;
  command.bytes = bytes;
  impl_->add(command);
  return {};
}

Status Recorder::fill(const Buffer& dst, uint64_t dst_offset, uint64_t bytes, uint32_t value) {
  if (dst_offset % 4 || bytes % 4 || dst_offset > dst.bytes() || bytes > dst.bytes() - dst_offset) {
    return {Errc::kInvalidArgument,
            fmt::format("fill: {} bytes at {} must be multiples of 4 inside the buffer's {}", bytes,
                        dst_offset, dst.bytes())};
  }
  if (bytes == 0) return {};
  const DeviceRange write{dst.address() + dst_offset, bytes};
  HADAL_TRY(impl_->track({}, {&write, 1}, "fill"));
  Command command;
  command.kind = Command::Kind::kFill;
  command.dst = vk::buffer_handle(dst);
  command.dst_offset = dst_offset;
  command.bytes = bytes;
  command.value = value;
  impl_->add(command);
  return {};
}

uint32_t Recorder::queue() const noexcept {
  return impl_->options.queue;
}
uint32_t Recorder::dispatch_count() const noexcept {
  return impl_->dispatches;
}
VkCommandBuffer Recorder::command_buffer() const noexcept {
  return impl_->command_buffer;
}

Result<std::vector<DispatchTiming>> Recorder::timings() const {
  const uint32_t count = uint32_t(impl_->timed_labels.size());
  if (!impl_->queries) {
    return Status(Errc::kUnsupported, "recorder: no timestamps on this queue, or none asked for");
  }
  std::vector<uint64_t> ticks(2 * size_t(count));
  if (count > 0) {
    HADAL_TRY(vk::to_status(
        impl_->device->table.GetQueryPoolResults(impl_->device->device, impl_->queries, 0,
                                                 2 * count, ticks.size() * 8, ticks.data(), 8,
                                                 VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
        "recorder: vkGetQueryPoolResults"));
  }
  std::vector<DispatchTiming> result;
  for (uint32_t i = 0; i < count; ++i) {
    const double delta = double(ticks[2 * i + 1] - ticks[2 * i]);
    const double period = impl_->device->caps.timestamp_period_ns;
    result.push_back(
        {std::string(impl_->timed_labels[i]), delta * period, double(ticks[2 * i]) * period});
  }
  return result;
}

}  // namespace hadal
