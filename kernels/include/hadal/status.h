// Errors as values: every public function of hadal returns a Status or a Result<T>.
// No exception crosses the public boundary; nothing here allocates except an error's message.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace hadal {

enum class Errc {
  kOk = 0,
  kInvalidArgument,    // an argument breaks a documented rule; the message names it and its value
  kUnsupported,        // a right request that this device, format or model cannot serve
  kOutOfHostMemory,    // an allocation on the host failed
  kOutOfDeviceMemory,  // an allocation on the device failed or would not fit the plan
  kNoDevice,           // no Vulkan device, or none that has what was asked for
  kDeviceLost,         // the driver reported VK_ERROR_DEVICE_LOST
  kHazard,             // recorder check: two dispatches touch the same bytes without a barrier
  kIo,                 // a file could not be opened, read or written
  kMalformed,          // a file's content breaks its format
  kCancelled,          // the caller asked to stop
  kInternal,           // a driver error that has no better name
};

// The enumerator's name without the leading k, for messages and logs.
[[nodiscard]] std::string_view errc_name(Errc code) noexcept;

// Result of an operation without a value. Message grammar: "noun: quantity rule, got value",
// e.g. "fp8_gemm: a_stride must be at least k, got 7100 < 7168".
class [[nodiscard]] Status {
 public:
  Status() noexcept = default;  // success
  Status(Errc code, std::string message) : code_(code), message_(std::move(message)) {}

  [[nodiscard]] bool ok() const noexcept { return code_ == Errc::kOk; }
  [[nodiscard]] Errc code() const noexcept { return code_; }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }

 private:
  Errc code_ = Errc::kOk;
  std::string message_;
};

// A value or the reason why there is none. value() and * require ok().
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit by design
  Result(Errc code, std::string message) : status_(code, std::move(message)) {}

  [[nodiscard]] bool ok() const noexcept { return value_.has_value(); }
  [[nodiscard]] const Status& status() const noexcept { return status_; }
  [[nodiscard]] T& value() & { return *value_; }
  [[nodiscard]] const T& value() const& { return *value_; }
  [[nodiscard]] T&& value() && { return std::move(*value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace hadal

// Returns the Status of `expr` from the enclosing function when it is an error.
#define HADAL_TRY(expr)                                    \
  do {                                                     \
    ::hadal::Status hadal_try_status_ = (expr);            \
    if (!hadal_try_status_.ok()) return hadal_try_status_; \
  } while (false)

// HADAL_ASSIGN(auto x, f()): declares or assigns from a Result, returning its Status on error.
#define HADAL_CONCAT_INNER(a, b) a##b
#define HADAL_CONCAT(a, b) HADAL_CONCAT_INNER(a, b)
#define HADAL_ASSIGN(lhs, expr) HADAL_ASSIGN_INNER(HADAL_CONCAT(hadal_result_, __LINE__), lhs, expr)
#define HADAL_ASSIGN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                       \
  if (!tmp.ok()) return tmp.status();      \
  lhs = std::move(tmp).value()
