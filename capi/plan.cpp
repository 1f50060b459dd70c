#include "plan.h"

#include <algorithm>

namespace hadal::capi {

Status check_size(std::string_view kernel, std::string_view name, uint32_t value) {
  constexpr uint32_t kMax = 1u << 30;
  if (value <= kMax) return {};
  return invalid(kernel, fmt::format("{} must be at most {}, got {}", name, kMax, value));
}

void Call::fail(std::string_view text) {
  if (status_.ok()) status_ = invalid(plan_.kernel, text);
}

void Call::rows(std::string_view name, uint32_t of_call, uint32_t& rows) {
  if (of_call > rows) {
    fail(fmt::format("{} must be at most the plan's {}, got {}", name, rows, of_call));
  }
  rows = std::min(rows, of_call);
}

void Call::add(std::string_view name, DeviceAddress address, uint64_t bytes) {
  if (bytes == 0) return;
  assert(count_ < operands_.size());
  operands_[count_++] = {name, {address, bytes}};
}

DeviceAddress Call::operand(std::string_view name, const hadal_range& range, uint32_t alignment,
                            bool needed) {
  DeviceAddress address = range.address;
  if (address == 0 && range.buffer != VK_NULL_HANDLE) {
    VkBufferDeviceAddressInfo info{};
    info.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
    info.buffer = range.buffer;
    address = plan_.context.get_buffer_device_address(plan_.context.handle, &info) + range.offset;
  }
  if (address == 0) {
    if (needed) fail(fmt::format("{} must be given, as an address or a buffer", name));
    return 0;
  }
  if (address % alignment) {
    fail(fmt::format("{} must be {}-byte aligned, got {:#x}", name, alignment, address));
  }
  add(name, address, range.bytes);
  return address;
}

Call::Indirect Call::indirect(const hadal_range& range, bool needed) {
  if (range.buffer == VK_NULL_HANDLE) {
    if (needed) fail("indirect must be given as a buffer and an offset");
    return {};
  }
  hadal_range whole{};
  whole.buffer = range.buffer;
  const DeviceAddress address = operand("indirect", whole, 4, needed);
  constexpr uint64_t kCommand = sizeof(VkDispatchIndirectCommand);
  if (range.bytes != 0 && range.bytes < kCommand) {
    fail(fmt::format("indirect must hold {} bytes, got {}", kCommand, range.bytes));
  }
  if (range.offset % 4 || range.offset > UINT64_MAX / 2) {
    fail(fmt::format("indirect's offset must be a multiple of 4, got {}", range.offset));
  }
  if (!status_.ok()) return {};
  return {Buffer::borrow(range.buffer, address, range.offset + kCommand), range.offset};
}

}  // namespace hadal::capi
