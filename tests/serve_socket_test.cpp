// The server on a real socket over a stand-in for the engine, which does what a test tells it:
// queue limits, failures at every time, clients that leave, the end.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "serve/json.h"
#include "serve/stand_in.h"

namespace hadal::serve {
namespace {

using namespace std::chrono_literals;

// A client that waits.
class Client {
 public:
  explicit Client(const Running& server) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET, address.sin_port = htons(server.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const timeval patience{60, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Client() { leave(); }
  void leave() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  void send(const std::string& bytes) {
    EXPECT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), ssize_t(bytes.size()));
  }
  void post(const std::string& body) {
    send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  void get(const std::string& path) {
    send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  // Until `end` has come; what is behind it waits for the next call.
  std::string until(const std::string& end) {
    while (true) {
      if (const size_t at = in_.find(end); at != in_.npos) {
        std::string text = in_.substr(0, at + end.size());
        in_.erase(0, at + end.size());
        return text;
      }
      char bytes[4096];
      const ssize_t got = recv(fd_, bytes, sizeof bytes, 0);
      if (got <= 0) return std::exchange(in_, "") + "<end>";
      in_.append(bytes, size_t(got));
    }
  }
  // Status and body of an answer that is whole.
  std::pair<int, std::string> answer() {
    const std::string head = until("\r\n\r\n");
    const size_t at = head.find("Content-Length: ");
    if (at == head.npos) return {-1, head};
    const size_t length = std::stoul(head.substr(at + 16));
    while (in_.size() < length) {
      char bytes[4096];
      const ssize_t got = recv(fd_, bytes, sizeof bytes, 0);
      if (got <= 0) return {-2, in_};
      in_.append(bytes, size_t(got));
    }
    std::string body = in_.substr(0, length);
    in_.erase(0, length);
    return {std::stoi(head.substr(9, 3)), body};
  }

 private:
  int fd_;
  std::string in_;
};

template <class Check>
void eventually(Check&& check) {
  for (int i = 0; i < 6000 && !check(); ++i) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(check());
}

const std::string kWhole = R"({"prompt":"a","max_tokens":3})";
const std::string kStream = R"({"prompt":"a","max_tokens":3,"stream":true})";
const std::string kEndless = R"({"prompt":"a","max_tokens":1000000000,"stream":true})";

TEST(ServeSocketHost, TooManyRequestsAreTold) {
  ServerOptions options;
  options.max_requests = 3;
  Running server(options);
  server.script.hold = true;
  Client a(server), b(server), c(server);
  a.post(R"({"prompt":"a","max_tokens":2,"n":2})");
  eventually([&] { return server.script.added == 2; });
  b.post(R"({"prompt":"a","n":2})");  // one place is left, and it asks for two
  const auto [status, body] = b.answer();
  EXPECT_EQ(status, 429);
  EXPECT_NE(body.find("\"rate_limit_error\""), body.npos);
  b.post(kWhole);
  server.script.hold = false;
  EXPECT_EQ(b.answer().first, 200);
  EXPECT_EQ(a.answer().first, 200);
  c.post(R"({"prompt":["a","b","c","d"]})");
  EXPECT_EQ(c.answer().first, 429);
  server.end();
  EXPECT_EQ(server.script.added, 3u);
}

TEST(ServeSocketHost, FailuresHaveAStatusBeforeTheFirstTokenAndAnEventBehindIt) {
  Running server;
  Client client(server);
  server.script.fail_at = 1;
  for (const std::string& body : {kWhole, kStream}) {
    client.post(body);
    const auto [status, text] = client.answer();
    EXPECT_EQ(status, 500);
    EXPECT_NE(text.find("engine: told to fail"), text.npos) << text;
  }
  server.script.fail_at = 2;
  client.post(kWhole);
  EXPECT_EQ(client.answer().first, 500);
  server.script.fail_at = 0;
  client.post(kEndless);
  EXPECT_TRUE(client.until("data: ").starts_with("HTTP/1.1 200"));
  server.script.fail_at = 1;
  const std::string events = client.until("0\r\n\r\n");
  EXPECT_NE(events.find("data: {\"error\":{\"message\":\"engine: told to fail\""), events.npos);
  EXPECT_NE(events.find("data: [DONE]"), events.npos);
  client.get("/health");
  EXPECT_EQ(client.answer().first, 200);
  server.script.failure = Errc::kDeviceLost;
  client.post(kWhole);
  EXPECT_EQ(client.answer().first, 503);
  client.get("/health");
  const auto [status, health] = client.answer();
  EXPECT_EQ(status, 503);
  EXPECT_NE(health.find("\"device_lost\""), health.npos);
}

TEST(ServeSocketHost, TimeIsLimited) {
  ServerOptions options;
  options.request_seconds = 0.2;
  Running server(options);
  Client client(server);
  server.script.hold = true;  // not a token in time
  for (const std::string& body : {kWhole, kStream}) {
    client.post(body);
    EXPECT_EQ(client.answer().first, 504);
  }
  server.script.hold = false;
  server.script.delay_us = 1000;
  client.post(R"({"prompt":"a","max_tokens":1000000000})");  // what there is then is the answer
  const auto [status, body] = client.answer();
  EXPECT_EQ(status, 200);
  EXPECT_NE(body.find("\"finish_reason\":\"length\""), body.npos);
}

TEST(ServeSocketHost, WhoLeavesIsCancelled) {
  Running server;
  server.script.delay_us = 200;
  for (const std::string& body :
       {kEndless, std::string(R"({"prompt":"a","max_tokens":1000000000,"n":3})")}) {
    const uint32_t before = server.script.cancelled;
    const uint32_t added = server.script.added, wanted = body == kEndless ? 1 : 3;
    Client client(server);
    client.post(body);
    eventually([&] { return server.script.added == added + wanted; });
    client.leave();
    eventually([&] { return server.script.cancelled == before + wanted; });
  }
  // A request that waits behind the one under way does not hide that its client leaves.
  Client ahead(server);
  const uint32_t before = server.script.cancelled;
  ahead.post(kEndless);
  (void)ahead.until("data: ");
  ahead.send(std::string(1 << 20, 'x'));
  ahead.leave();
  eventually([&] { return server.script.cancelled == before + 1; });
  server.end();
  EXPECT_NE(server.log.find(" 499 "), server.log.npos) << server.log;
}

TEST(ServeSocketHost, AnswersOfALongPromptWaitForItsPages) {
  Running server;
  server.script.hold = true;
  Client client(server);
  std::string ids = "5";
  for (int i = 0; i < 99; ++i) ids += ",5";
  client.post(R"({"max_tokens":2,"n":3,"seed":4,"prompt":[)" + ids + "]}");
  eventually([&] { return server.script.added == 1; });
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(server.script.added, 1u);
  server.script.hold = false;
  const auto [status, body] = client.answer();
  EXPECT_EQ(status, 200);
  const auto json = parse_body(body);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["usage"]["prompt_tokens"], 100);
  EXPECT_EQ((*json)["usage"]["completion_tokens"], 6);
  for (const Json& choice : (*json)["choices"]) EXPECT_EQ(choice["text"], "xx");
  server.end();
  ASSERT_EQ(server.script.requests.size(), 3u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(server.script.requests[i].sampling.seed, seed_of_answer(4, i));
  }
}

TEST(ServeSocketHost, TheEndGivesTimeAndThenAnError) {
  ServerOptions options;
  options.grace_seconds = 0.3;
  Running server(options);
  server.script.delay_us = 1000;
  Client idle(server), stream(server), whole(server), brief(server);
  stream.post(kEndless);
  whole.post(R"({"prompt":"a","max_tokens":1000000000})");
  brief.post(R"({"prompt":"a","max_tokens":30,"stream":true})");
  eventually([&] { return server.script.added == 3; });
  server.stop();
  EXPECT_EQ(idle.until("never"), "<end>");
  EXPECT_NE(brief.until("[DONE]").find("\"finish_reason\":\"length\""), std::string::npos);
  const std::string last = stream.until("[DONE]");
  EXPECT_NE(last.find("\"code\":\"server_stopping\""), last.npos);
  EXPECT_EQ(whole.answer().first, 503);
  server.end();
  EXPECT_EQ(server.script.cancelled, 2u);
}

TEST(ServeSocketHost, AddressesThatAreNoneAreRefused) {
  Script script;
  auto runner = runtime::EngineRunner::create(std::make_unique<StandIn>(script));
  ASSERT_TRUE(runner.ok());
  ServerOptions options;
  options.host = "256.0.0.1 ";
  EXPECT_EQ(Server::create(model_without_template(), **runner, options).status().message(),
            "--host: must be an address of this machine, got 256.0.0.1 ");
  Running server;
  options.host = "127.0.0.1", options.port = server.port;
  const Status taken = Server::create(model_without_template(), **runner, options).status();
  EXPECT_EQ(taken.code(), Errc::kIo);
  EXPECT_TRUE(taken.message().starts_with("--port: cannot listen on 127.0.0.1:"));
}

}  // namespace
}  // namespace hadal::serve
