// This program started once more in another role, and bytes between the two.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hadal/status.h"

namespace hadal::examples {

// Closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { close(); }
  [[nodiscard]] int get() const { return fd_; }
  int release();
  void close();

 private:
  int fd_;
};

struct Channel {
  Descriptor read, write;
};
// A pair of connected Unix-domain sockets. Errors: kIo.
[[nodiscard]] Result<Channel> make_channel();

// Runs this program's own command line with `options` as its first ones. The child is a new image
// (exec), so it may begin with Vulkan whatever the parent did. Standard input and output are
// `input` and `output`; -1 keeps the parent's. Errors: kIo.
[[nodiscard]] Result<pid_t> start_self(int argc, const std::vector<std::string>& options, int input,
                                       int output);
// Waits; Ok for exit code 0. Errors: kCancelled for an interrupted child, kInternal, naming `role`.
[[nodiscard]] Status wait_for(pid_t child, const std::string& role);

// Errors: kIo.
[[nodiscard]] Status write_all(int fd, std::span<const std::byte> bytes);
// Appends up to `count` bytes more, fewer at the end. Memory grows with what arrives, not with
// `count`. Errors: kIo, kCancelled.
[[nodiscard]] Status read_more(int fd, uint64_t count, std::vector<std::byte>& bytes);

}  // namespace hadal::examples
