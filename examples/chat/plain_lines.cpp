// Lines as they come, from a pipe or from a terminal without libedit.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "chat/lines.h"
#include "chat/terminal.h"

namespace hadal::chat {
namespace {

class PlainLines : public LineReader {
 public:
  PlainLines(bool prompts, bool (*interrupted)()) : prompts_(prompts), interrupted_(interrupted) {}

  LineEnd read(const std::string& prompt, std::string& line) override {
    if (prompts_) (void)write_all(STDERR_FILENO, prompt);
    line.clear();
    for (;;) {
      if (const size_t end = buffer_.find('\n'); end != buffer_.npos) {
        line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return LineEnd::kLine;
      }
      if (ended_ && buffer_.empty()) return LineEnd::kEnd;
      if (ended_) {
        line.swap(buffer_);
        return LineEnd::kLine;
      }
      const LineEnd more = fill();
      if (more == LineEnd::kInterrupted) {
        buffer_.clear();
        if (prompts_) (void)write_all(STDERR_FILENO, "\n");  // behind the ^C of the terminal
      }
      if (more != LineEnd::kLine) return more;
    }
  }

 private:
  // Waits with SIGINT let in there only, so that none falls between a look and the wait.
  LineEnd fill() {
    sigset_t blocked, old;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    pthread_sigmask(SIG_BLOCK, &blocked, &old);
    pollfd fd{STDIN_FILENO, POLLIN, 0};
    const bool early = interrupted_();
    const int ready = early ? 0 : ppoll(&fd, 1, nullptr, &old);
    const int error = errno;
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    if (early || interrupted_()) return LineEnd::kInterrupted;
    if (ready < 0) return error == EINTR ? LineEnd::kLine : LineEnd::kFailed;
    char piece[65536];
    const ssize_t got = ::read(STDIN_FILENO, piece, sizeof piece);
    if (got < 0) return errno == EINTR ? LineEnd::kLine : LineEnd::kFailed;
    if (got == 0) ended_ = true;
    buffer_.append(piece, size_t(got));
    return LineEnd::kLine;
  }

  bool prompts_;
  bool (*interrupted_)();
  std::string buffer_;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<LineReader> plain_lines(bool prompts, bool (*interrupted)()) {
  return std::make_unique<PlainLines>(prompts, interrupted);
}

std::filesystem::path default_history_file() {
  if (const char* xdg = std::getenv("XDG_STATE_HOME"); xdg && *xdg == '/') {
    return std::filesystem::path(xdg) / "hadal" / "chat_history";
  }
  if (const char* home = std::getenv("HOME"); home && *home) {
    return std::filesystem::path(home) / ".local" / "state" / "hadal" / "chat_history";
  }
  return {};
}

}  // namespace hadal::chat
