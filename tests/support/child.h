// Runs a built program as a user would: its own process, limits, environment and standard streams.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hadal::test {

struct ChildOptions {
  std::vector<std::string> environment;  // NAME=value, beside the test's own
  std::string input;                     // standard input
  uint64_t address_space_bytes = 0;      // RLIMIT_AS; 0: none
  double timeout_seconds = 60.0;         // then it is killed, and signal says so
  bool on_device = false;                // through HADAL_TEST_LAUNCHER, which chooses the driver
  int signal_at_output = 0;              // sent once, when the first byte of output arrives
};

struct ChildResult {
  int code = -1;  // exit code, -1 when a signal ended it
  int signal = 0;
  std::string output, errors;
  double seconds = 0.0;
};

[[nodiscard]] ChildResult run_child(const std::vector<std::string>& command,
                                    const ChildOptions& options = {});

}  // namespace hadal::test
