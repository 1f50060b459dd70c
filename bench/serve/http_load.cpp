// A client of many streams on one thread: epoll, and no more of HTTP than the answers of these
// servers need.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "serve/load.h"

namespace hadal::bench {
namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class Stream {
 public:
  // Tells `poll` of itself as number `index`.
  Stream(const HttpTarget& target, int poll, uint32_t index)
      : poll_(poll), index_(index), keep_alive_(target.keep_alive) {
    address_.sin_family = AF_INET, address_.sin_port = htons(target.port);
    if (inet_pton(AF_INET, target.host.c_str(), &address_.sin_addr) != 1)
      throw std::runtime_error("host: must be an IPv4 address");
    open();
  }
  ~Stream() { close(fd_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void ask(const std::string& model, const LoadRequest& request) {
    const std::string body = fmt::format(
        R"({{"model":"{}","prompt":"{}","max_tokens":{},"temperature":0,"stream":true,"ignore_eos":true,)"
        R"("cache_prompt":false,"stream_options":{{"include_usage":true}}}})",
        model, request.prompt, request.tokens);
    const std::string text = fmt::format(
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "{}Content-Length: {}\r\n\r\n{}",
        keep_alive_ ? "" : "Connection: close\r\n", body.size(), body);
    wanted_ = request.tokens, counted_ = 0, pieces_ = 0, answered_ = false;
    asked_ = Clock::now();
    if (std::exchange(used_, true) && !keep_alive_) {
      close(fd_);
      text_.clear();
      open();
    }
    if (write(fd_, text.data(), text.size()) != ssize_t(text.size()))
      throw std::runtime_error("the server does not read");
  }

  // Reads what is there. True at the answer's end.
  bool read_some(LoadResult& result) {
    char bytes[16384];
    const ssize_t size = read(fd_, bytes, sizeof bytes);
    if (size == 0 && answered_) {  // nothing more will be asked on it
      epoll_ctl(poll_, EPOLL_CTL_DEL, fd_, nullptr);
      return false;
    }
    if (size <= 0) throw std::runtime_error("the server closed a connection");
    const Clock::time_point now = Clock::now();
    text_.append(bytes, size_t(size));
    bool done = false;
    size_t begin = 0;
    for (size_t end; (end = text_.find('\n', begin)) != text_.npos; begin = end + 1) {
      done |= take_line(std::string_view(text_).substr(begin, end - begin), now, result);
    }
    text_.erase(0, begin);
    answered_ |= done;
    return done;
  }

 private:
  void open() {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd_, reinterpret_cast<const sockaddr*>(&address_), sizeof address_) != 0)
      throw std::runtime_error("cannot connect");
    epoll_event event{};
    event.events = EPOLLIN, event.data.u32 = index_;
    epoll_ctl(poll_, EPOLL_CTL_ADD, fd_, &event);
  }

  bool take_line(std::string_view line, Clock::time_point now, LoadResult& result) {
    if (line.starts_with("HTTP/1.1 ") && !line.starts_with("HTTP/1.1 200"))
      throw std::runtime_error("the server said " + std::string(line));
    if (!line.starts_with("data: ")) return false;
    if (line.starts_with("data: [DONE]")) {
      if (counted_ != wanted_)
        throw std::runtime_error(fmt::format("{} tokens came of {}", counted_, wanted_));
      result.tokens += counted_, ++result.requests;
      return true;
    }
    constexpr std::string_view kCount = "\"completion_tokens\":";
    if (const size_t at = line.find(kCount); at != line.npos)
      std::from_chars(line.data() + at + kCount.size(), line.data() + line.size(), counted_);
    const size_t text = line.find("\"text\":\"");
    if (text == line.npos || line.substr(text).starts_with("\"text\":\"\"")) return false;
    const auto since = [now](Clock::time_point from) {
      return std::chrono::duration<double>(now - from).count();
    };
    if (pieces_++ == 0) {
      result.first_token.push_back(since(asked_));
    } else {
      result.between_tokens.push_back(since(last_));
    }
    last_ = now;
    return false;
  }

  sockaddr_in address_{};
  int poll_, fd_ = -1;
  uint32_t index_;
  bool keep_alive_, used_ = false, answered_ = false;
  std::string text_;
  Clock::time_point asked_, last_;
  uint32_t wanted_ = 0, counted_ = 0, pieces_ = 0;
};

}  // namespace

LoadResult run_http_load(const HttpTarget& target, const std::vector<LoadRequest>& load,
                         uint32_t streams) {
  std::vector<std::unique_ptr<Stream>> open;
  const int poll = epoll_create1(EPOLL_CLOEXEC);
  for (uint32_t i = 0; i < streams && i < load.size(); ++i) {
    open.push_back(std::make_unique<Stream>(target, poll, i));
  }
  LoadResult result;
  const double cpu = cpu_seconds();
  const auto begin = Clock::now();
  size_t next = 0;
  for (const auto& stream : open) stream->ask(target.model, load[next++]);
  std::vector<epoll_event> events(streams);
  while (result.requests < load.size()) {
    const int count = epoll_wait(poll, events.data(), int(events.size()), 60'000);
    if (count == 0) throw std::runtime_error("the server has said nothing for a minute");
    if (count < 0 && errno != EINTR) throw std::runtime_error("epoll_wait");
    for (int i = 0; i < count; ++i) {
      Stream& stream = *open[events[size_t(i)].data.u32];
      if (stream.read_some(result) && next < load.size()) stream.ask(target.model, load[next++]);
    }
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  result.client_cpu_seconds = cpu_seconds() - cpu;
  close(poll);
  return result;
}

}  // namespace hadal::bench
