// The terminal and its signals while answers are printed.
#pragma once

#include <string_view>

namespace hadal::chat {

// From now on SIGINT is remembered instead of ending the program, and SIGPIPE is an error of the
// write.
void remember_interrupts();
[[nodiscard]] bool interrupted();  // since the last take_interrupt()
bool take_interrupt();

// Whether the terminal understands escape sequences (TERM).
[[nodiscard]] bool has_escapes();
// Whether dim text is welcome on this descriptor (NO_COLOR, TERM).
[[nodiscard]] bool wants_colour(int fd);

// All of it; false when it cannot be written.
[[nodiscard]] bool write_all(int fd, std::string_view text);

// While it lives, what is typed is not shown, and waits for the next line, also behind a Ctrl-C,
// which takes nothing away that was printed before it; the terminal is as before afterwards, also
// when SIGTERM or SIGHUP end the program, and while Ctrl-Z stops it. interrupted() has to be asked
// now and then, for what goes on in the background and comes to the front.
class NoEcho {
 public:
  explicit NoEcho(bool enabled);
  ~NoEcho();
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;
};

}  // namespace hadal::chat
