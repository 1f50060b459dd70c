#include "serve/http.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace hadal::serve {
namespace {

struct Path {
  std::string_view path;
  Endpoint endpoint;
  bool post;
};
constexpr Path kPaths[] = {
    {"/", Endpoint::kPage, false},
    {"/health", Endpoint::kHealth, false},
    {"/metrics", Endpoint::kMetrics, false},
    {"/v1/models", Endpoint::kModels, false},
    {"/v1/completions", Endpoint::kCompletions, true},
    {"/v1/chat/completions", Endpoint::kChat, true},
    {"/tokenize", Endpoint::kTokenize, true},
    {"/detokenize", Endpoint::kDetokenize, true},
};
constexpr std::string_view kModelPrefix = "/v1/models/";

std::string_view without_query(std::string_view target) {
  return target.substr(0, target.find('?'));
}

std::optional<Path> find_path(std::string_view target) {
  const std::string_view path = without_query(target);
  for (const Path& known : kPaths) {
    if (known.path == path) return known;
  }
  if (path.size() > kModelPrefix.size() && path.starts_with(kModelPrefix)) {
    return Path{kModelPrefix, Endpoint::kModel, false};
  }
  return {};
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    uint8_t byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ptr == &text[i + 1] + 2) {
      out += char(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

const char* reason(uint32_t status) {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 417: return "Expectation Failed";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "Status";
  }
}

// A Host field without its port; of [::1]:80 the address.
std::string_view host_name(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

bool is_address(std::string_view name) {
  const bool v6 = name.find(':') != name.npos;
  return !name.empty() &&
         name.find_first_not_of(v6 ? "0123456789abcdefABCDEF:." : "0123456789.") == name.npos;
}

bool host_is_known(std::string_view host, const ServerOptions& options) {
  const std::string_view name = host_name(host);
  const auto& allowed = options.allowed_hosts;
  // Only HTTP/1.0 may come without, which no browser speaks.
  return host.empty() || is_address(name) || name == "localhost" || name == options.host ||
         std::find(allowed.begin(), allowed.end(), name) != allowed.end();
}

bool origin_is_known(const RequestHead& head, const ServerOptions& options) {
  const auto is_own = [&](std::string_view scheme) {
    return head.origin.size() == scheme.size() + head.host.size() &&
           head.origin.starts_with(scheme) && head.origin.ends_with(head.host);
  };
  return is_own("http://") || is_own("https://") || !allowed_origin(head, options).empty();
}

}  // namespace

Outcome<Route> find_route(const std::string& method, std::string_view target) {
  const std::optional<Path> path = find_path(target);
  if (!path) return ApiError{404, "path: no such path", "", "not_found", 0};
  const bool fits = path->post ? method == "POST" : method == "GET" || method == "HEAD";
  if (!fits) {
    return ApiError{405, fmt::format("method: must be one of {}", allowed_methods(target)), "",
                    "method_not_allowed", 0};
  }
  Route route{path->endpoint, "", path->post};
  if (path->endpoint == Endpoint::kModel) {
    route.model_id = percent_decoded(without_query(target).substr(kModelPrefix.size()));
  }
  return route;
}

std::string_view allowed_methods(std::string_view target) {
  const std::optional<Path> path = find_path(target);
  if (!path) return "";
  return path->post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

bool is_key(std::string_view given, const std::vector<std::string>& keys) {
  bool any = false;
  for (const std::string& key : keys) {
    size_t different = given.size() ^ key.size();
    for (size_t i = 0; i < given.size(); ++i) {
      different |= size_t(static_cast<unsigned char>(given[i] ^ key[i % key.size()]));
    }
    any |= different == 0;  // all keys are looked at
  }
  return any;
}

std::string_view allowed_origin(const RequestHead& head, const ServerOptions& options) {
  if (head.origin.empty()) return "";
  for (const std::string& origin : options.cors_origins) {
    if (origin == "*" || origin == head.origin) return origin;
  }
  return "";
}

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::optional<ApiError> check_access(const RequestHead& head, Endpoint endpoint,
                                     const ServerOptions& options) {
  if (is_loopback(options.host) && !host_is_known(head.host, options)) {
    return ApiError{403, "Host: must be an address, localhost or a name given by --allow-host", "",
                    "host_not_allowed", 0};
  }
  if (!head.origin.empty() && !origin_is_known(head, options)) {
    return ApiError{403, "Origin: must be this server or one given by --cors-origin", "",
                    "origin_not_allowed", 0};
  }
  const bool open = endpoint == Endpoint::kPage || endpoint == Endpoint::kHealth;
  if (open || options.api_keys.empty()) return {};
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view given = head.authorization;
  const bool bearer = given.size() >= kBearer.size() &&
                      std::equal(kBearer.begin(), kBearer.end(), given.begin(),
                                 [](char a, char b) { return a == b || (a | 32) == (b | 32); });
  if (bearer && is_key(given.substr(kBearer.size()), options.api_keys)) return {};
  return ApiError{401, "Authorization: must be 'Bearer KEY' with a key of this server", "",
                  "invalid_api_key", 0};
}

ResponseHead::ResponseHead(uint32_t status)
    : text_(fmt::format("HTTP/1.1 {} {}\r\n", status, reason(status))) {}

ResponseHead& ResponseHead::field(std::string_view name, std::string_view value) {
  fmt::format_to(std::back_inserter(text_), "{}: {}\r\n", name, value);
  return *this;
}

Outcome<int32_t> parse_priority(std::string_view text) {
  int32_t priority = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), priority);
  if (error == std::errc() && end == text.data() + text.size() && std::abs(priority) <= 100) {
    return priority;
  }
  return ApiError{400, "X-Priority: must be a whole number from -100 to 100", "", "", 0};
}

std::string printable(std::string_view text, size_t most) {
  std::string out(text.substr(0, most));
  for (char& c : out) {
    if (c < 0x21 || c > 0x7e) c = '?';
  }
  return text.size() > most ? out + "..." : out;
}

}  // namespace hadal::serve
