// HTTP as the server means it, apart from its sockets: which path is what, who may use it, and how
// a response begins. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_error.h"
#include "serve/server_options.h"

namespace hadal::serve {

enum class Endpoint {
  kPage,
  kHealth,
  kMetrics,
  kModels,
  kModel,  // Route::model_id says which
  kCompletions,
  kChat,
  kTokenize,
  kDetokenize,
};

// Of a request's head, what decides about it.
struct RequestHead {
  std::string method, target;
  std::string authorization, origin, host;  // empty: not there
};

struct Route {
  Endpoint endpoint = Endpoint::kPage;
  std::string model_id;
  bool post = false;  // else GET and HEAD
};

// Errors: 404 for a path that is none, 405 for a method that it does not have.
[[nodiscard]] Outcome<Route> find_route(const std::string& method, std::string_view target);
// The methods of a path for the Allow header; empty: no such path.
[[nodiscard]] std::string_view allowed_methods(std::string_view target);

// Whether a head may go on:
//   key     401 without one of the keys, where there are any, but for / and /health
//   origin  403 for pages of other sites than this server's own and cors_origins: browsers send
//           their requests although they hide the answers
//   host    403 for names that are neither an address, localhost nor allowed_hosts, where the
//           server listens on loopback only: a page whose name resolves to 127.0.0.1 is no friend
[[nodiscard]] std::optional<ApiError> check_access(const RequestHead& head, Endpoint endpoint,
                                                   const ServerOptions& options);
// Takes a time that depends on the length of `given` alone.
[[nodiscard]] bool is_key(std::string_view given, const std::vector<std::string>& keys);
// The value of Access-Control-Allow-Origin; empty: none.
[[nodiscard]] std::string_view allowed_origin(const RequestHead& head,
                                              const ServerOptions& options);
[[nodiscard]] bool is_loopback(std::string_view host);

// A response's head, as it goes over the wire. No value may come from a client.
class ResponseHead {
 public:
  explicit ResponseHead(uint32_t status);
  ResponseHead& field(std::string_view name, std::string_view value);
  [[nodiscard]] std::string text() const { return text_ + "\r\n"; }

 private:
  std::string text_;
};

// X-Priority: a whole number from -100 to 100. Errors: 400.
[[nodiscard]] Outcome<int32_t> parse_priority(std::string_view text);

// Bytes of a client as a log line may hold them: printable, at most `most` bytes.
[[nodiscard]] std::string printable(std::string_view text, size_t most = 80);

}  // namespace hadal::serve
