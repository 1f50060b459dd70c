// One client's connection: reads requests, one after another, and writes their answers. Two
// coroutines: one reads whatever comes, also while an answer is under way, so that a client that
// goes away is seen at once; the other parses and answers.
//
// A client that closes its side for writing counts as gone, as it does for nginx and Go's net/http:
// what it asked the engine for is cancelled.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>
#include <string>

#include "serve/core.h"
#include "serve/generation.h"
#include "serve/http.h"

namespace hadal::serve {

// A request as it was read.
struct HttpRequest {
  RequestHead head;
  Route route;
  std::string body;
  std::string priority;  // X-Priority; empty: not there
  bool keep_alive = false;
  bool chunks = false;              // the client knows chunked answers (HTTP/1.1)
  bool preflight = false;           // OPTIONS
  std::optional<ApiError> refused;  // by its head; it has no body
  Time arrived;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Core& core, asio::ip::tcp::socket socket);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Spawns the coroutines, which keep the connection.
  void start();
  // Of the server's clock, some times a second: ends what takes too long.
  void check_time(Time now);
  // Between requests since then; none while one is under way.
  [[nodiscard]] std::optional<Time> idle_since() const;
  // The server stops: ends between requests.
  void stop() { signal_.notify(); }
  // The server has waited long enough: answers under way end with an error.
  void end_generation();
  // Closes the socket, whatever is under way.
  void cut();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  enum class Phase { kIdle, kReading, kAnswering, kWriting, kLingering };

  asio::awaitable<void> read_all();
  asio::awaitable<void> serve_all();
  // Reads one request. An error that is set is to be answered, and then the connection closed.
  asio::awaitable<bool> read_request(HttpRequest& request, std::optional<ApiError>& error);
  asio::awaitable<bool> read_head(Parser& parser, std::optional<ApiError>& error);
  asio::awaitable<bool> read_body(Parser& parser, std::optional<ApiError>& error);
  // Gives the parser what is there. False at an error of the client.
  bool parse_some(Parser& parser, std::optional<ApiError>& error);
  void take_head(const Parser& parser, HttpRequest& request) const;
  // What the head alone decides.
  [[nodiscard]] std::optional<ApiError> check_head(const Parser& parser, HttpRequest& request);
  asio::awaitable<void> linger();

  // connection_answers.cpp. Each returns whether the connection may go on.
  asio::awaitable<bool> answer(HttpRequest& request);
  asio::awaitable<bool> answer_generation(HttpRequest& request);
  asio::awaitable<bool> answer_tokens(HttpRequest& request);
  asio::awaitable<bool> answer_whole(HttpRequest& request, Generation& generation,
                                     const AnswerWriter& writer);
  asio::awaitable<bool> answer_stream(HttpRequest& request, Generation& generation,
                                      const AnswerWriter& writer);
  asio::awaitable<bool> answer_error(HttpRequest& request, const ApiError& error);
  asio::awaitable<bool> answer_page(HttpRequest& request);
  asio::awaitable<bool> answer_preflight(HttpRequest& request);
  asio::awaitable<bool> answer_text(HttpRequest& request, uint32_t status,
                                    std::string_view content_type, std::string_view text);
  [[nodiscard]] ResponseHead begin_head(const HttpRequest& request, uint32_t status) const;
  // Runs `prepare` here, or on the worker where it may take long.
  template <class Prepare>
  asio::awaitable<void> run_prepared(const HttpRequest& request, bool long_work, Prepare prepare);

  asio::awaitable<bool> write(std::string_view bytes);
  void set_phase(Phase phase, std::optional<double> seconds);
  [[nodiscard]] bool gone() const { return eof_ || broken_; }
  void log(const HttpRequest& request, uint32_t status, std::string_view more = "");

  Core& core_;
  asio::ip::tcp::socket socket_;
  std::string peer_;
  Signal signal_;  // bytes, an end, a time that is over, news of an answer
  std::string inbox_;
  size_t buffered_ = 0;  // of Core::buffered_bytes
  bool eof_ = false, broken_ = false, late_ = false;
  std::shared_ptr<Generation> generation_;  // that is being answered
  Phase phase_ = Phase::kIdle;
  Time phase_began_, deadline_ = Time::max();
  std::list<Connection*>::iterator place_;
};

}  // namespace hadal::serve
