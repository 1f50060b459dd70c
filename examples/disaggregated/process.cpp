#include "disaggregated/process.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "common/program.h"

namespace hadal::examples {
namespace {

Status io_error(const char* what) {
  return {Errc::kIo, fmt::format("{}: {}", what, std::strerror(errno))};
}

// What this process was started with. A loader that runs the program (ld.so PROGRAM ...) is a part
// of it, and then it is /proc/self/exe, too.
std::vector<std::string> own_command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() {
  return std::exchange(fd_, -1);
}

void Descriptor::close() {
  if (fd_ >= 0) ::close(release());
}

Result<Channel> make_channel() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return io_error("socketpair");
  return Channel{Descriptor(fds[0]), Descriptor(fds[1])};
}

Result<pid_t> start_self(int argc, const std::vector<std::string>& options, int input, int output) {
  std::vector<std::string> words = own_command_line();
  if (words.size() < size_t(argc)) return Status(Errc::kIo, "/proc/self/cmdline cannot be read");
  words.insert(words.end() - argc + 1, options.begin(), options.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) return io_error("fork");
  if (child > 0) return child;
  if ((input >= 0 && dup2(input, 0) < 0) || (output >= 0 && dup2(output, 1) < 0)) _exit(127);
  execv("/proc/self/exe", argv.data());
  _exit(127);
}

Status wait_for(pid_t child, const std::string& role) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return io_error("waitpid");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFEXITED(status) && WEXITSTATUS(status) == kExitInterrupted) {
    return {Errc::kCancelled, "interrupted"};
  }
  return {Errc::kInternal,
          WIFEXITED(status)
              ? fmt::format("the {} process ended with code {}", role, WEXITSTATUS(status))
              : fmt::format("the {} process was ended by signal {}", role, WTERMSIG(status))};
}

Status write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return io_error("the state cannot be written");
    bytes = bytes.subspan(size_t(count));
  }
  return {};
}

Status read_more(int fd, uint64_t count, std::vector<std::byte>& bytes) {
  constexpr uint64_t kPiece = 1 << 20;
  while (count > 0) {
    const size_t before = bytes.size();
    bytes.resize(before + std::min(count, kPiece));
    const ssize_t got = read(fd, bytes.data() + before, bytes.size() - before);
    bytes.resize(before + size_t(std::max<ssize_t>(got, 0)));
    if (got < 0 && errno == EINTR && !interrupted()) continue;
    if (got < 0 && interrupted()) return {Errc::kCancelled, "interrupted"};
    if (got < 0) return io_error("the state cannot be read");
    if (got == 0) return {};
    count -= uint64_t(got);
  }
  return {};
}

}  // namespace hadal::examples
