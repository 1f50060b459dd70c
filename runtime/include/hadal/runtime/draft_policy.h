// Whether guessing pays, and which way of it: a step that verifies guesses takes longer and gives
// more tokens. Pure: it sees measured steps only.
//
// A way is a number: 0 computes no guesses, the others are the caller's (sources and depths). The
// policy keeps the way with the most tokens per second and tries the others now and then. Trying is
// paid from a credit of kLossShare of all time: a trial step takes what it lost against the kept
// way from it, a trial ends when nothing is left and goes on when there is credit again. So at any
// time no more than kLossShare and one step was lost by trying. A way that lost its trial is left
// alone for kPauseSteps, twice as long each time up to kMostPauseSteps. The kept way falls back to
// plain steps at once when it becomes slower than they were.
//
// Steps are compared with steps of about as many requests (powers of two): two rows may cost twice
// one row, and 64 no more than 32.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace hadal::runtime {

class DraftPolicy {
 public:
  static constexpr double kLossShare = 0.02;
  static constexpr uint32_t kTrialSteps = 24;
  static constexpr uint32_t kPauseSteps = 1024, kMostPauseSteps = 8192;

  // Ways 0 to ways - 1.
  explicit DraftPolicy(uint32_t ways);
  // The way of the next step, for as many requests as the last measured one had.
  [[nodiscard]] uint32_t way() const;
  // What a step did: its seconds with all that its guesses took, its tokens for each request.
  void measured(uint32_t way, uint32_t requests, double seconds, double tokens_per_request);

 private:
  static constexpr uint32_t kNone = ~0u;
  struct Way {
    double seconds = 0.0, tokens = 0.0, steps = 0.0;  // sums that forget
    uint32_t counted = 0;                             // steps of the trial
    uint32_t pause = kPauseSteps;
    uint64_t next_trial = 0;
    bool warm = false;
    void add(double step_seconds, double step_tokens);
    [[nodiscard]] double rate() const { return seconds > 0.0 ? tokens / seconds : 0.0; }
    [[nodiscard]] double step_seconds() const { return steps > 0.0 ? seconds / steps : 0.0; }
  };
  // What is known about steps of about as many requests.
  struct Load {
    std::vector<Way> ways;
    uint32_t kept = 0, tried = kNone;
    double credit = 0.0;  // seconds
    uint64_t steps = 0;
  };
  static void judge(Load& load);
  static void end_trial(Load& load);
  static void start_trial(Load& load);

  std::array<Load, 33> loads_;  // by the bits of the number of requests
  uint32_t load_ = 1;
};

}  // namespace hadal::runtime
