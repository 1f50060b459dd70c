#include "support/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace hadal::test {
namespace {

[[noreturn]] void become(const std::vector<std::string>& command, const ChildOptions& options,
                         int input, int output, int errors) {
  dup2(input, 0), dup2(output, 1), dup2(errors, 2);
  for (const std::string& entry : options.environment) putenv(strdup(entry.c_str()));
  if (options.address_space_bytes > 0) {
    const rlimit limit{options.address_space_bytes, options.address_space_bytes};
    setrlimit(RLIMIT_AS, &limit);
  }
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

}  // namespace

ChildResult run_child(const std::vector<std::string>& words, const ChildOptions& options) {
  std::vector<std::string> command;
  const char* launcher = std::getenv("HADAL_TEST_LAUNCHER");
  if (options.on_device && launcher && *launcher) command.push_back(launcher);
  command.insert(command.end(), words.begin(), words.end());
  FILE* input = std::tmpfile();  // a file: a pipe could fill while nobody reads
  std::fwrite(options.input.data(), 1, options.input.size(), input);
  std::fflush(input);
  std::rewind(input);
  int out[2], err[2];
  ChildResult result;
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return result;
  const auto start = std::chrono::steady_clock::now();
  const pid_t pid = fork();
  if (pid == 0) become(command, options, fileno(input), out[1], err[1]);
  std::fclose(input);
  close(out[1]), close(err[1]);
  pollfd fds[] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  std::string* texts[] = {&result.output, &result.errors};
  int pending_signal = options.signal_at_output;
  bool killed = false;
  for (int open_streams = 2; open_streams > 0;) {
    const double elapsed =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (elapsed > options.timeout_seconds && !killed) {
      kill(pid, SIGKILL);
      killed = true;
    }
    poll(fds, 2, 100);
    for (int i = 0; i < 2; ++i) {
      if (fds[i].fd < 0 || !(fds[i].revents & (POLLIN | POLLHUP))) continue;
      char piece[4096];
      const ssize_t count = read(fds[i].fd, piece, sizeof piece);
      if (count > 0) {
        texts[i]->append(piece, size_t(count));
        if (i == 0 && pending_signal) kill(pid, std::exchange(pending_signal, 0));
      } else {
        fds[i].fd = -1;
        --open_streams;
      }
    }
  }
  close(out[0]), close(err[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

}  // namespace hadal::test
