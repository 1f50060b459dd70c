#include "serve/connection.h"

#include <fmt/format.h>
#include <poll.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/rfc7230.hpp>

namespace hadal::serve {
namespace {

namespace http = boost::beast::http;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

// Bytes that are read ahead of what is parsed: a whole header, and requests sent ahead.
constexpr size_t kInboxBytes = 128 << 10;
// Of the system, for a stream whose client does not read.
constexpr int kSendBufferBytes = 128 << 10;
constexpr double kLingerSeconds = 2;

Time after(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

ApiError parse_error(boost::system::error_code ec, const ServerOptions& options) {
  if (ec == http::error::header_limit) {
    return {431,
            fmt::format("header: must have at most {} bytes, got more", options.max_header_bytes),
            "", "header_too_large", 0};
  }
  if (ec == http::error::body_limit) {
    return {413, fmt::format("body: must have at most {} bytes, got more", options.max_body_bytes),
            "", "body_too_large", 0};
  }
  return {400, "HTTP: must be a well-formed request, got: " + ec.message(), "", "bad_http", 0};
}

bool peer_closed(int fd) {
  pollfd poll_fd{fd, POLLRDHUP, 0};
  return ::poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace

Connection::Connection(Core& core, asio::ip::tcp::socket socket)
    : core_(core), socket_(std::move(socket)), signal_(core.io) {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.set_option(asio::socket_base::send_buffer_size(kSendBufferBytes), ignored);
  const auto peer = socket_.remote_endpoint(ignored);
  peer_ = fmt::format("{}:{}", peer.address().to_string(), peer.port());
  place_ = core_.connections.insert(core_.connections.end(), this);
}

Connection::~Connection() {
  core_.connections.erase(place_);
  core_.buffered_bytes -= buffered_;
}

void Connection::start() {
  set_phase(Phase::kIdle, core_.options.idle_seconds);
  asio::co_spawn(
      core_.io, [self = shared_from_this()] { return self->read_all(); }, asio::detached);
  asio::co_spawn(
      core_.io, [self = shared_from_this()] { return self->serve_all(); },
      [self = shared_from_this()](std::exception_ptr thrown) {
        if (self->generation_) self->generation_->abandon();
        if (thrown) self->cut();  // no memory, say: this client's end alone
      });
}

void Connection::set_phase(Phase phase, std::optional<double> seconds) {
  phase_ = phase;
  late_ = false;
  phase_began_ = Clock::now();
  deadline_ = seconds ? after(*seconds) : Time::max();
}

std::optional<Time> Connection::idle_since() const {
  if (phase_ != Phase::kIdle) return {};
  return phase_began_;
}

void Connection::end_generation() {
  if (generation_) generation_->cancel();
}

void Connection::check_time(Time now) {
  if (phase_ == Phase::kWriting && generation_ &&
      generation_->waiting_bytes() > core_.options.max_stream_bytes) {
    ++core_.metrics.cut_connections;
    return cut();
  }
  if (now < deadline_ || late_) return;
  late_ = true;
  if (phase_ == Phase::kWriting || phase_ == Phase::kReading) ++core_.metrics.cut_connections;
  if (phase_ == Phase::kWriting) return cut();
  signal_.notify();
}

void Connection::cut() {
  broken_ = true;
  boost::system::error_code ignored;
  socket_.close(ignored);
  signal_.notify();
}

asio::awaitable<void> Connection::read_all() {
  const auto self = shared_from_this();
  while (!gone() && socket_.is_open()) {
    if (inbox_.size() >= kInboxBytes) {
      // Nothing is read while the answer to what was sent before is under way; an end is seen.
      asio::steady_timer pause(core_.io, std::chrono::milliseconds(20));
      (void)co_await pause.async_wait(kTuple);
      if (socket_.is_open() && peer_closed(socket_.native_handle())) eof_ = true;
      if (inbox_.size() >= kInboxBytes) continue;
    }
    const auto [wait_error] = co_await socket_.async_wait(asio::socket_base::wait_read, kTuple);
    if (wait_error) break;
    boost::system::error_code ec;
    const size_t bytes = socket_.read_some(asio::buffer(core_.scratch), ec);
    if (ec == asio::error::would_block || ec == asio::error::interrupted) continue;
    if (ec == asio::error::eof) {
      eof_ = true;
    } else if (ec) {
      broken_ = true;
    } else {
      inbox_.append(core_.scratch.data(), bytes);
    }
    signal_.notify();
  }
  if (!eof_) broken_ = true;
  signal_.notify();
}

asio::awaitable<void> Connection::serve_all() {
  const auto self = shared_from_this();
  while (true) {
    set_phase(Phase::kIdle, core_.options.idle_seconds);
    if (inbox_.empty()) inbox_ = std::string();  // idle connections hold no memory
    while (inbox_.empty() && !gone() && !late_ && !core_.stopping) co_await signal_.wait();
    if (inbox_.empty() || broken_) break;
    HttpRequest request;
    std::optional<ApiError> error;
    const bool whole = co_await read_request(request, error);
    set_phase(Phase::kAnswering, {});
    if (error) {
      request.keep_alive = false;
      co_await answer_error(request, *error);
    }
    if (!whole) {
      co_await linger();
      break;
    }
    const bool goes_on = co_await answer(request);
    if (!goes_on) break;
    core_.buffered_bytes -= std::exchange(buffered_, 0);
  }
  boost::system::error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  socket_.close(ignored);
}

// Closing with unread bytes would reset the connection, and the client might lose the answer.
asio::awaitable<void> Connection::linger() {
  if (gone()) co_return;
  boost::system::error_code ec;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ec);
  set_phase(Phase::kLingering, kLingerSeconds);
  while (!ec && !gone() && !late_) {
    inbox_.clear();
    co_await signal_.wait();
  }
}

bool Connection::parse_some(Parser& parser, std::optional<ApiError>& error) {
  boost::system::error_code ec;
  const size_t taken = parser.put(asio::buffer(inbox_), ec);
  inbox_.erase(0, taken);
  if (ec == http::error::need_more) ec = {};
  if (!ec && taken == 0 && inbox_.size() >= kInboxBytes) ec = http::error::bad_chunk_extension;
  if (ec) error = parse_error(ec, core_.options);
  return !ec;
}

asio::awaitable<bool> Connection::read_head(Parser& parser, std::optional<ApiError>& error) {
  set_phase(Phase::kReading, core_.options.header_seconds);
  size_t seen = 0;
  while (true) {
    if (inbox_.size() != seen) {
      if (!parse_some(parser, error)) co_return false;
      if (parser.is_header_done()) co_return true;
      seen = inbox_.size();
    }
    if (gone()) co_return false;
    if (late_) {
      error = ApiError{408, "header: it took too long", "", "timeout", 0};
      co_return false;
    }
    if (inbox_.size() == seen) co_await signal_.wait();
  }
}

asio::awaitable<bool> Connection::read_body(Parser& parser, std::optional<ApiError>& error) {
  set_phase(Phase::kReading, core_.options.body_seconds);
  while (!parser.is_done()) {
    const size_t before = inbox_.size();
    if (!inbox_.empty()) {
      if (!parse_some(parser, error)) co_return false;
      const size_t size = parser.get().body().size();
      core_.buffered_bytes += size - buffered_;
      buffered_ = size;
      if (core_.buffered_bytes > core_.options.max_buffered_bytes) {
        error = ApiError{503, "body: too many are being read", "", "overloaded", 1};
        co_return false;
      }
      if (parser.is_done()) break;
    }
    if (!inbox_.empty() && inbox_.size() != before) continue;
    if (gone()) co_return false;
    if (late_) {
      error = ApiError{408, "body: it took too long", "", "timeout", 0};
      co_return false;
    }
    co_await signal_.wait();
  }
  co_return true;
}

void Connection::take_head(const Parser& parser, HttpRequest& request) const {
  const auto& message = parser.get();
  request.head.method = std::string(message.method_string());
  request.head.target = std::string(message.target());
  request.head.authorization = std::string(message[http::field::authorization]);
  request.head.origin = std::string(message[http::field::origin]);
  request.head.host = std::string(message[http::field::host]);
  request.priority = std::string(message["X-Priority"]);
  request.chunks = message.version() >= 11;
  request.preflight = message.method() == http::verb::options;
  request.arrived = Clock::now();
  request.keep_alive = message.keep_alive();
}

std::optional<ApiError> Connection::check_head(const Parser& parser, HttpRequest& request) {
  const auto& message = parser.get();
  if (message.version() != 11 && message.version() != 10) {
    return ApiError{400, "HTTP: version must be 1.1 or 1.0", "", "bad_http", 0};
  }
  if (message.version() == 11 && message.count(http::field::host) != 1) {
    return ApiError{400, "Host: must be there once", "", "bad_http", 0};
  }
  const auto expect = message[http::field::expect];
  if (!expect.empty() && !boost::beast::iequals(expect, "100-continue")) {
    return ApiError{417, "Expect: must be 100-continue", "", "", 0};
  }
  if (request.preflight) return {};
  Outcome<Route> route = find_route(request.head.method, request.head.target);
  if (!route.ok()) return std::move(route.error());
  request.route = std::move(*route);
  return check_access(request.head, request.route.endpoint, core_.options);
}

asio::awaitable<bool> Connection::read_request(HttpRequest& request,
                                               std::optional<ApiError>& error) {
  Parser parser;
  parser.eager(false);
  parser.header_limit(uint32_t(core_.options.max_header_bytes));
  parser.body_limit(core_.options.max_body_bytes);
  const bool has_head = co_await read_head(parser, error);
  if (!has_head) co_return false;
  take_head(parser, request);
  std::optional<ApiError> refused = check_head(parser, request);
  if (refused && !parser.is_done()) {
    error = std::move(refused);  // its body is not read
    co_return false;
  }
  request.refused = std::move(refused);
  if (!parser.is_done() && !parser.get()[http::field::expect].empty() && inbox_.empty()) {
    const bool written = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
    if (!written) co_return false;
  }
  const bool has_body = co_await read_body(parser, error);
  request.body = std::move(parser.get().body());
  co_return has_body;
}

asio::awaitable<bool> Connection::write(std::string_view bytes) {
  constexpr size_t kPiece = 64 << 10;  // has the time of its own
  const Phase before = phase_;
  while (!bytes.empty() && !broken_) {
    set_phase(Phase::kWriting, core_.options.write_seconds);
    const std::string_view piece = bytes.substr(0, kPiece);
    const auto [ec, written] =
        co_await asio::async_write(socket_, asio::buffer(piece.data(), piece.size()), kTuple);
    if (ec) broken_ = true;
    bytes.remove_prefix(piece.size());
  }
  set_phase(before, {});
  co_return !broken_;
}

void Connection::log(const HttpRequest& request, uint32_t status, std::string_view more) {
  ++core_.metrics.responses[status];
  if (!core_.options.log) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - request.arrived).count();
  core_.log(fmt::format("{} {} {} {} {:.1f}ms{}", peer_,
                        request.head.method.empty() ? "-" : printable(request.head.method, 16),
                        request.head.target.empty() ? "-" : printable(request.head.target), status,
                        request.arrived == Time() ? 0.0 : seconds * 1e3, more));
}

}  // namespace hadal::serve
