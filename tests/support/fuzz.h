// How long a mutation test goes on: its seeds in every run, and with HADAL_FUZZ_SECONDS=N
// (./test.sh --all) new ones for N seconds more.
#pragma once

#include <chrono>
#include <cstdlib>

namespace hadal::testing {

class FuzzRounds {
 public:
  explicit FuzzRounds(int seeds) : seeds_(seeds) {
    const char* seconds = std::getenv("HADAL_FUZZ_SECONDS");
    if (seconds != nullptr) end_ += std::chrono::seconds(std::atoi(seconds));
  }
  // True while another round is wanted.
  [[nodiscard]] bool next() {
    if (done_ >= seeds_ && std::chrono::steady_clock::now() >= end_) return false;
    ++done_;
    return true;
  }
  [[nodiscard]] int done() const { return done_; }

 private:
  int seeds_;
  int done_ = 0;
  std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now();
};

}  // namespace hadal::testing
