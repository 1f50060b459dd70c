// What every entry point of the C ABI uses: no exception leaves it, errors are written where the
// caller wants them, structures may be of any version. Shared by both libraries. Private.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "hadal/device.h"
#include "hadal/hadal.h"
#include "hadal/status.h"

namespace hadal::capi {

[[nodiscard]] inline Status invalid(std::string_view kernel, std::string_view text) {
  return {Errc::kInvalidArgument, fmt::format("{}: {}", kernel, text)};
}

// Writes a failure to `error` and returns its code.
hadal_status report(const Status& status, hadal_error* error) noexcept;
hadal_status report_exception(hadal_error* error) noexcept;

// Runs the body of an entry point; nothing thrown leaves it.
template <class Body>
hadal_status guarded(hadal_error* error, Body body) noexcept {
  try {
    return report(body(), error);
  } catch (...) {
    return report_exception(error);
  }
}

// Copies what the caller's structure has of T; later members are zero. Members that this library
// does not know must be zero. A size below T's as first released, or above any sense, is refused.
inline constexpr size_t kMaxStructSize = 4096;
template <class T>
inline constexpr size_t kFirstStructSize = sizeof(T);  // specialise when T grows
[[nodiscard]] Status read_bytes(std::string_view kernel, std::string_view what, const void* in,
                                size_t smallest, void* out, size_t size);
template <class T>
[[nodiscard]] Status read_struct(std::string_view kernel, std::string_view what, const T* in,
                                 T& out) {
  return read_bytes(kernel, what, in, kFirstStructSize<T>, &out, sizeof(T));
}
// Writes as much of `value` as the caller's structure holds, behind its struct_size.
[[nodiscard]] Status write_bytes(std::string_view kernel, std::string_view what, const void* value,
                                 size_t smallest, void* out, size_t size);
template <class T>
[[nodiscard]] Status write_struct(std::string_view kernel, std::string_view what, const T& value,
                                  T* out) {
  return write_bytes(kernel, what, &value, kFirstStructSize<T>, out, sizeof(T));
}

// `value` as an enumerator of `count`, which are 0 .. count - 1 on both sides of the ABI.
template <class Enum>
[[nodiscard]] Result<Enum> enumerator(std::string_view kernel, std::string_view name,
                                      uint32_t value, uint32_t count) {
  if (value < count) return Enum(value);
  return invalid(kernel, fmt::format("{} must be below {}, got {}", name, count, value));
}
[[nodiscard]] Status check_flags(std::string_view kernel, uint32_t flags, uint32_t known);

// The handles of a host, without a queue.
[[nodiscard]] BorrowedDevice borrowed_device(const hadal_context_info& info);
// Calls `log` with each message; null: silent.
[[nodiscard]] LogFn log_function(hadal_log_fn log, void* user);

}  // namespace hadal::capi
