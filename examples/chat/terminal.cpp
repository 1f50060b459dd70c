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
// What the handlers read is written before the flag that they look at.
volatile std::sig_atomic_t g_changed = 0;  // the terminal's state, which has to be put back
volatile std::sig_atomic_t g_hides = 0;    // a NoEcho lives
volatile std::sig_atomic_t g_behind = 0;   // it went on in the background: nothing is hidden yet
termios g_shown, g_hidden;
struct sigaction g_on_stop, g_on_continue;  // of before

void on_interrupt(int) {
  g_interrupted = 1;
}

// Only then the terminal is ours to change; tcsetattr() would stop us in the background.
bool in_front() {
  return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

void on_end(int signal) {
  // May be called in a handler.
  if (g_changed && in_front()) tcsetattr(STDIN_FILENO, TCSANOW, &g_shown);
  std::signal(signal, SIG_DFL);
  raise(signal);
}

void handle(int signal, void (*handler)(int), int flags = 0, struct sigaction* before = nullptr) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;  // without SA_RESTART reads end
  sigaction(signal, &action, before);
}

void hide_again() {
  if (!g_hides) return;
  g_behind = !in_front();
  if (!g_behind) tcsetattr(STDIN_FILENO, TCSANOW, &g_hidden);
}

// A shell has the terminal as it was, and may leave it otherwise.
void on_continue(int) {
  const int error = errno;
  hide_again();
  errno = error;
}

// Ctrl-Z: not every shell puts the terminal right. Stops as without a handler, which an orphaned
// process group does not.
void on_stop(int signal) {
  const int error = errno;
  if (g_hides && in_front()) tcsetattr(STDIN_FILENO, TCSANOW, &g_shown);
  struct sigaction ours {};
  handle(signal, SIG_DFL, 0, &ours);
  sigset_t this_one, before;
  sigemptyset(&this_one);
  sigaddset(&this_one, signal);
  raise(signal);
  pthread_sigmask(SIG_UNBLOCK, &this_one, &before);  // here
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  sigaction(signal, &ours, nullptr);
  hide_again();
  errno = error;
}

void set_terminal(const termios& state) {
  while (tcsetattr(STDIN_FILENO, TCSADRAIN, &state) != 0 && errno == EINTR) {
  }
}

}  // namespace

void remember_interrupts() {
  handle(SIGINT, on_interrupt);
  handle(SIGPIPE, SIG_IGN);
}

bool interrupted() {
  if (g_behind) hide_again();  // a shell need not say that it has brought us to the front
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
  g_hidden = g_shown;
  g_hidden.c_lflag &= ~tcflag_t(ECHO);
  g_hidden.c_lflag |= NOFLSH;  // Ctrl-C would drop what has been printed and is not yet shown
  g_changed = 1;
  g_hides = 1;
  handle(SIGTERM, on_end);
  handle(SIGHUP, on_end);
  handle(SIGTSTP, on_stop, SA_RESTART, &g_on_stop);
  if (g_on_stop.sa_handler == SIG_IGN) sigaction(SIGTSTP, &g_on_stop, nullptr);  // stays so
  handle(SIGCONT, on_continue, SA_RESTART, &g_on_continue);
  set_terminal(g_hidden);
}

NoEcho::~NoEcho() {
  if (!g_hides) return;
  g_hides = 0;
  g_behind = 0;
  set_terminal(g_shown);
  g_changed = 0;
  sigaction(SIGTSTP, &g_on_stop, nullptr);
  sigaction(SIGCONT, &g_on_continue, nullptr);
}

}  // namespace hadal::chat
