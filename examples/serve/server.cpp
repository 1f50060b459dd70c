#include "serve/server.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>

#include "serve/connection.h"
#include "serve/core.h"

namespace hadal::serve {
namespace {

using asio::ip::tcp;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds kTick{50};
// Behind the grace time: for last events to be written.
constexpr double kLastWordsSeconds = 2;

}  // namespace

struct Server::Impl {
  Impl(const ServedModel& model, runtime::EngineRunner& runner, ServerOptions options)
      : core(model, runner, std::move(options)), acceptor(core.io), ticker(core.io) {}

  Core core;
  tcp::acceptor acceptor;
  asio::steady_timer ticker;
  std::optional<asio::signal_set> signals;
  Time grace_end = Time::max(), last_words_end = Time::max();
  bool ended_generations = false;

  Status listen();
  asio::awaitable<void> accept_all();
  asio::awaitable<void> tick();
  asio::awaitable<void> watch_signals();
  void make_room();
  void begin_stop();
  [[nodiscard]] bool finished() const {
    return core.stopping && core.connections.empty() && core.requests == 0;
  }
};

Status Server::Impl::listen() {
  boost::system::error_code ec;
  tcp::resolver resolver(core.io);
  const auto found = resolver.resolve(core.options.host, std::to_string(core.options.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, ec);
  if (ec || found.empty()) {
    return {Errc::kInvalidArgument,
            fmt::format("--host: must be an address of this machine, got {}", core.options.host)};
  }
  const tcp::endpoint endpoint = *found.begin();
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (!ec) return {};
  return {Errc::kIo, fmt::format("--port: cannot listen on {}:{}: {}",
                                 endpoint.address().to_string(), endpoint.port(), ec.message())};
}

// The one that has been idle longest goes.
void Server::Impl::make_room() {
  Connection* longest = nullptr;
  for (Connection* connection : core.connections) {
    const auto since = connection->idle_since();
    if (since && (longest == nullptr || *since < *longest->idle_since())) longest = connection;
  }
  if (longest != nullptr) longest->cut();
}

asio::awaitable<void> Server::Impl::accept_all() {
  while (acceptor.is_open()) {
    auto [ec, socket] = co_await acceptor.async_accept(kTuple);
    if (!acceptor.is_open()) break;
    if (ec) {  // no descriptor left, say: the backlog waits
      asio::steady_timer pause(core.io, std::chrono::milliseconds(50));
      (void)co_await pause.async_wait(kTuple);
      continue;
    }
    if (core.connections.size() >= core.options.max_connections) {
      ++core.metrics.refused_connections;
      make_room();
      // Those that were cut end soon; where all are busy, the new one has to go.
      if (core.connections.size() >= core.options.max_connections + 64) continue;
    }
    std::make_shared<Connection>(core, std::move(socket))->start();
  }
}

void Server::Impl::begin_stop() {
  const Time now = Clock::now();
  if (core.stopping) {
    grace_end = now;  // asked twice: at once
    return;
  }
  core.stopping = true;
  boost::system::error_code ignored;
  acceptor.close(ignored);
  const auto duration = [](double seconds) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  };
  grace_end = now + duration(core.options.grace_seconds);
  for (Connection* connection : core.connections) connection->stop();
}

// Time for everybody, and the end.
asio::awaitable<void> Server::Impl::tick() {
  while (true) {
    ticker.expires_after(kTick);
    (void)co_await ticker.async_wait(kTuple);
    const Time now = Clock::now();
    // Who is told may end, and take its place in the list away.
    const std::vector<Connection*> all(core.connections.begin(), core.connections.end());
    for (Connection* connection : all) connection->check_time(now);
    if (now >= grace_end && !std::exchange(ended_generations, true)) {
      for (Connection* connection : all) connection->end_generation();
      last_words_end = now + std::chrono::duration_cast<Clock::duration>(
                                 std::chrono::duration<double>(kLastWordsSeconds));
    }
    if (now >= last_words_end) {
      for (Connection* connection : all) connection->cut();
    }
    if (!finished()) continue;
    if (signals) signals->cancel();
    co_return;
  }
}

asio::awaitable<void> Server::Impl::watch_signals() {
  while (true) {
    const auto [ec, number] = co_await signals->async_wait(kTuple);
    if (ec) co_return;
    core.log(fmt::format("signal {}: stopping", number));
    begin_stop();
  }
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::create(const ServedModel& model,
                                               runtime::EngineRunner& runner,
                                               ServerOptions options) {
  auto impl = std::make_unique<Impl>(model, runner, std::move(options));
  HADAL_TRY(impl->listen());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

uint16_t Server::port() const {
  boost::system::error_code ec;
  return impl_->acceptor.local_endpoint(ec).port();
}

std::string Server::url() const {
  boost::system::error_code ec;
  const auto endpoint = impl_->acceptor.local_endpoint(ec);
  const auto address = endpoint.address();
  return fmt::format(fmt::runtime(address.is_v6() ? "http://[{}]:{}" : "http://{}:{}"),
                     address.to_string(), endpoint.port());
}

void Server::run(bool signals) {
  Impl& impl = *impl_;
  if (signals) {
    impl.signals.emplace(impl.core.io, SIGTERM, SIGINT);
    asio::co_spawn(impl.core.io, impl.watch_signals(), asio::detached);
  }
  asio::co_spawn(impl.core.io, impl.accept_all(), asio::detached);
  asio::co_spawn(impl.core.io, impl.tick(), asio::detached);
  impl.core.io.run();
  impl.core.worker.join();
}

void Server::stop() {
  asio::post(impl_->core.io, [this] { impl_->begin_stop(); });
}

}  // namespace hadal::serve
