// What all connections of a server share: its io context, model, engine, limits and counters. All
// but Mailbox::push belongs to the one thread that runs the io context.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "hadal/runtime/engine_runner.h"
#include "serve/metrics.h"
#include "serve/served_model.h"
#include "serve/server_options.h"

namespace hadal::serve {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

class Connection;
class Generation;

// What one coroutine waits for. A notify() that comes while nobody waits is kept.
class Signal {
 public:
  explicit Signal(asio::io_context& io) : timer_(io, Time::max()) {}
  void notify();
  asio::awaitable<void> wait();

 private:
  asio::steady_timer timer_;
  bool set_ = false, waiting_ = false;
};

// The engine thread's way to the io thread: many entries, one wake-up.
class Mailbox {
 public:
  struct Entry {
    std::shared_ptr<Generation> to;
    uint32_t answer = 0;
    runtime::EngineToken token;
    Time time;
  };
  explicit Mailbox(asio::io_context& io) : io_(io) {}
  void push(Entry entry);  // any thread

 private:
  void deliver();
  asio::io_context& io_;
  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::vector<Entry> delivered_;  // keeps its memory
};

struct Core {
  Core(const ServedModel& served, runtime::EngineRunner& engine, ServerOptions server_options);

  asio::io_context io{1};
  asio::thread_pool worker{1};  // prepares what takes long: large bodies, grammars
  const ServedModel& model;
  runtime::EngineRunner& runner;
  const ServerOptions options;
  Metrics metrics;
  Mailbox mailbox{io};
  std::list<Connection*> connections;  // open
  uint64_t requests = 0;               // in the engine, by answers
  size_t buffered_bytes = 0;           // of bodies that are being read
  bool stopping = false;               // no new requests
  bool device_lost = false;
  std::vector<char> scratch;  // what is read goes through
  std::mt19937_64 random;

  void log(std::string_view line) const;
  [[nodiscard]] std::string new_id(std::string_view prefix);
};

}  // namespace hadal::serve
