#include "plan.h"

#include <algorithm>

namespace hadal::capi {
namespace {

static_assert(int(Errc::kOk) == HADAL_OK);
static_assert(int(Errc::kInvalidArgument) == HADAL_ERROR_INVALID_ARGUMENT);
static_assert(int(Errc::kUnsupported) == HADAL_ERROR_UNSUPPORTED);
static_assert(int(Errc::kOutOfHostMemory) == HADAL_ERROR_OUT_OF_HOST_MEMORY);
static_assert(int(Errc::kOutOfDeviceMemory) == HADAL_ERROR_OUT_OF_DEVICE_MEMORY);
static_assert(int(Errc::kNoDevice) == HADAL_ERROR_NO_DEVICE);
static_assert(int(Errc::kDeviceLost) == HADAL_ERROR_DEVICE_LOST);
static_assert(int(Errc::kHazard) == HADAL_ERROR_HAZARD);
static_assert(int(Errc::kIo) == HADAL_ERROR_IO);
static_assert(int(Errc::kMalformed) == HADAL_ERROR_MALFORMED);
static_assert(int(Errc::kCancelled) == HADAL_ERROR_CANCELLED);
static_assert(int(Errc::kInternal) == HADAL_ERROR_INTERNAL);

hadal_status write_error(hadal_status status, std::string_view message,
                         hadal_error* error) noexcept {
  constexpr size_t kTextAt = offsetof(hadal_error, message);
  if (!error || error->struct_size <= kTextAt) return status;
  error->status = status;
  const size_t room = std::min(error->struct_size, sizeof(hadal_error)) - kTextAt;
  const size_t length = std::min(message.size(), room - 1);
  std::memcpy(error->message, message.data(), length);
  error->message[length] = 0;
  return status;
}

size_t struct_size_of(const void* in) {
  size_t size = 0;
  std::memcpy(&size, in, sizeof(size));
  return size;
}

Status check_struct(std::string_view kernel, std::string_view what, const void* in,
                    size_t smallest) {
  if (!in) return invalid(kernel, fmt::format("{} must not be null", what));
  const size_t given = struct_size_of(in);
  if (given >= smallest && given <= kMaxStructSize) return {};
  return invalid(kernel, fmt::format("{}.struct_size must be {} to {}, got {}", what, smallest,
                                     kMaxStructSize, given));
}

}  // namespace

hadal_status report(const Status& status, hadal_error* error) noexcept {
  if (status.ok()) return HADAL_OK;
  return write_error(hadal_status(status.code()), status.message(), error);
}

hadal_status report_exception(hadal_error* error) noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return write_error(HADAL_ERROR_OUT_OF_HOST_MEMORY, "hadal: out of host memory", error);
  } catch (const std::exception& e) {
    return write_error(HADAL_ERROR_INTERNAL, e.what(), error);
  } catch (...) {
    return write_error(HADAL_ERROR_INTERNAL, "hadal: unknown exception", error);
  }
}

Status read_bytes(std::string_view kernel, std::string_view what, const void* in, size_t smallest,
                  void* out, size_t size) {
  HADAL_TRY(check_struct(kernel, what, in, smallest));
  const size_t given = struct_size_of(in);
  const auto* bytes = static_cast<const unsigned char*>(in);
  if (given > size && std::any_of(bytes + size, bytes + given, [](auto b) { return b != 0; })) {
    return {Errc::kUnsupported,
            fmt::format("{}: {} of {} bytes has members that this version does not know", kernel,
                        what, given)};
  }
  std::memcpy(out, in, std::min(given, size));
  return {};
}

Status write_bytes(std::string_view kernel, std::string_view what, const void* value,
                   size_t smallest, void* out, size_t size) {
  HADAL_TRY(check_struct(kernel, what, out, smallest));
  const size_t given = std::min(struct_size_of(out), size);
  std::memcpy(static_cast<char*>(out) + sizeof(size_t),
              static_cast<const char*>(value) + sizeof(size_t), given - sizeof(size_t));
  return {};
}

Status check_flags(std::string_view kernel, uint32_t flags, uint32_t known) {
  if ((flags & ~known) == 0) return {};
  return invalid(kernel, fmt::format("flags must be of {:#x}, got {:#x}", known, flags));
}

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
