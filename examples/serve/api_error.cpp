#include "serve/api_error.h"

#include "serve/json.h"

namespace hadal::serve {

std::string ApiError::type() const {
  switch (http) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    case 504: return "timeout_error";
    default: return http < 500 ? "invalid_request_error" : "server_error";
  }
}

std::string ApiError::body() const {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json error;
  error["message"] = message, error["type"] = type();
  error["param"] = or_null(param), error["code"] = or_null(code);
  return dump(Json{{"error", std::move(error)}});
}

ApiError error_of(const Status& status, std::string param) {
  ApiError error{500, status.message(), std::move(param), "", 0};
  switch (status.code()) {
    case Errc::kInvalidArgument:
    case Errc::kUnsupported: error.http = 400; break;
    case Errc::kCancelled: error.http = 503, error.code = "server_stopping"; break;
    case Errc::kDeviceLost: error.http = 503, error.code = "device_lost"; break;
    case Errc::kOutOfDeviceMemory: error.http = 500, error.code = "out_of_device_memory"; break;
    default: break;
  }
  return error;
}

}  // namespace hadal::serve
