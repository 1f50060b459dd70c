// How a server behaves towards its clients.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/generate_request.h"

namespace hadal::serve {

struct ServerOptions {
  std::string host = "127.0.0.1";          // an address, or a name of one
  uint16_t port = 8000;                    // 0: any that is free
  std::vector<std::string> api_keys;       // one of them is needed, if there are any
  std::vector<std::string> cors_origins;   // whose pages may use the server; "*": all
  std::vector<std::string> allowed_hosts;  // beside addresses and localhost (http.h)

  size_t max_header_bytes = 16 << 10;
  size_t max_body_bytes = 4 << 20;
  size_t max_buffered_bytes = 256 << 20;  // of all bodies that are being read
  size_t max_stream_bytes = 1 << 20;      // of one stream that its client does not read
  uint32_t max_connections = 4096;
  uint32_t max_requests = 288;  // in the engine, its rows and those that wait; an answer each
  RequestLimits request;
  RequestDefaults defaults;

  double idle_seconds = 75;      // between requests of a connection
  double header_seconds = 10;    // for the whole of a header
  double body_seconds = 60;      // for the whole of a body
  double write_seconds = 30;     // for a piece of an answer to be taken
  double request_seconds = 600;  // for an answer to be generated, waiting included
  double grace_seconds = 30;     // for what is under way, at the end

  // A line of text for each request, without its end. Called on the server's thread.
  std::function<void(std::string_view)> log;
  bool log_prompts = false;
};

}  // namespace hadal::serve
