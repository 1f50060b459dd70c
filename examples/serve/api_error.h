// What a client is told when its request is refused or fails: OpenAI's shape,
// {"error": {"message", "type", "param", "code"}}, with the HTTP status that goes with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "hadal/status.h"

namespace hadal::serve {

struct ApiError {
  uint32_t http = 400;
  std::string message;               // "FIELD: rule, got value" where a field is to blame
  std::string param;                 // the field; empty: null
  std::string code;                  // a word that programs can compare; empty: null
  uint32_t retry_after_seconds = 0;  // 0: no such header

  // "invalid_request_error", or what else OpenAI calls errors of this HTTP status.
  [[nodiscard]] std::string type() const;
  // The whole body.
  [[nodiscard]] std::string body() const;
};

// Of the library: the caller's fault is 400, an engine that was told to stop or lost its device is
// 503, the rest 500.
[[nodiscard]] ApiError error_of(const Status& status, std::string param = "");

// A value or the error that goes to the client.
template <class T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
  Outcome(ApiError error) : value_(std::move(error)) {}  // NOLINT: implicit by design
  [[nodiscard]] bool ok() const { return value_.index() == 0; }
  [[nodiscard]] ApiError& error() { return std::get<1>(value_); }
  [[nodiscard]] const ApiError& error() const { return std::get<1>(value_); }
  [[nodiscard]] T& operator*() { return std::get<0>(value_); }
  [[nodiscard]] const T& operator*() const { return std::get<0>(value_); }
  [[nodiscard]] T* operator->() { return &std::get<0>(value_); }
  [[nodiscard]] const T* operator->() const { return &std::get<0>(value_); }

 private:
  std::variant<T, ApiError> value_;
};

}  // namespace hadal::serve
