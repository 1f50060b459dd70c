// An HTTP server over an engine: one thread for all its sockets, which is run()'s caller. Tokens
// come from the engine runner's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "hadal/runtime/engine_runner.h"
#include "hadal/status.h"
#include "serve/served_model.h"
#include "serve/server_options.h"

namespace hadal::serve {

class Server {
 public:
  // Listens from now on. Model and runner must outlive it. Errors: kInvalidArgument for an address
  // that is none, kIo for one that cannot be listened on.
  [[nodiscard]] static Result<std::unique_ptr<Server>> create(const ServedModel& model,
                                                              runtime::EngineRunner& runner,
                                                              ServerOptions options);
  ~Server();

  [[nodiscard]] uint16_t port() const;
  [[nodiscard]] std::string url() const;  // http://127.0.0.1:8000

  // Serves until stop(), or with `signals` until SIGTERM or SIGINT: then nobody new is listened
  // to, and what is under way gets grace_seconds (none at a second signal) before it ends with an
  // error. Returns when every connection is closed and the engine has nothing of this server left.
  void run(bool signals);
  void stop();  // any thread

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal::serve
