#include "entry.h"

#include <algorithm>
#include <cstring>
#include <new>

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

BorrowedDevice borrowed_device(const hadal_context_info& info) {
  BorrowedDevice handles;
  handles.get_instance_proc_addr = info.get_instance_proc_addr;
  handles.instance = info.instance;
  handles.physical_device = info.physical_device;
  handles.device = info.device;
  handles.queue_family = info.queue_family;
  handles.create_info = info.create_info;
  handles.allocation_callbacks = info.allocation_callbacks;
  handles.pipeline_cache = info.pipeline_cache;
  handles.constants = info.constants;
  return handles;
}

LogFn log_function(hadal_log_fn log, void* user) {
  if (!log) return {};
  return [log, user](LogLevel level, const std::string& text) {
    const hadal_log_level said = level == LogLevel::kError     ? HADAL_LOG_ERROR
                                 : level == LogLevel::kWarning ? HADAL_LOG_WARNING
                                                               : HADAL_LOG_INFO;
    log(user, said, text.c_str());
  };
}

}  // namespace hadal::capi
