#include "chat/terminal.h"

#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace hadal::chat {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;
volatile std::sig_atomic_t g_hides = 0;
termios g_shown;  // written before g_hides

void on_interrupt(int) {
  g_interrupted = 1;
}

void on_end(int signal) {
  if (g_hides) tcsetattr(STDIN_FILENO, TCSANOW, &g_shown);  // may be called in a handler
  std::signal(signal, SIG_DFL);
  raise(signal);
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;  // without SA_RESTART: reads end
  sigaction(signal, &action, nullptr);
}

}  // namespace

void remember_interrupts() {
  handle(SIGINT, on_interrupt);
  handle(SIGPIPE, SIG_IGN);
}

bool interrupted() {
  return g_interrupted != 0;
}

bool take_interrupt() {
  const bool came = g_interrupted != 0;
  g_interrupted = 0;
  return came;
}

bool has_escapes() {
  const char* terminal = std::getenv("TERM");
  return terminal != nullptr && *terminal != '\0' && std::strcmp(terminal, "dumb") != 0;
}

bool wants_colour(int fd) {
  const char* none = std::getenv("NO_COLOR");
  return isatty(fd) != 0 && (none == nullptr || *none == '\0') && has_escapes();
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(size_t(written));
    } else if (errno == EAGAIN) {  // a descriptor that somebody else made non-blocking
      pollfd ready{fd, POLLOUT, 0};
      (void)poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

NoEcho::NoEcho(bool enabled) {
  if (!enabled || tcgetattr(STDIN_FILENO, &g_shown) != 0) return;
  termios hidden = g_shown;
  hidden.c_lflag &= ~tcflag_t(ECHO);
  hidden.c_lflag |= NOFLSH;  // Ctrl-C would drop what has been printed and is not yet shown
  g_hides = 1;
  handle(SIGTERM, on_end);
  handle(SIGHUP, on_end);
  tcsetattr(STDIN_FILENO, TCSADRAIN, &hidden);
}

NoEcho::~NoEcho() {
  if (!g_hides) return;
  tcsetattr(STDIN_FILENO, TCSADRAIN, &g_shown);
  g_hides = 0;
}

}  // namespace hadal::chat
