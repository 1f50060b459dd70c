// Whether drafting pays: a step that verifies drafts takes longer and gives more tokens. Pure.
//
// The policy tries both kinds of step for a while, compares tokens per second, keeps the better for
// a period, and tries again. Trying costs less than 3 % of the steps.
#pragma once

#include <cstdint>

namespace hadal::runtime {

class DraftPolicy {
 public:
  static constexpr uint32_t kTrySteps = 8;      // of each kind
  static constexpr uint32_t kKeepSteps = 1024;  // of the better one

  // Whether the next step should use drafts.
  [[nodiscard]] bool drafts() const;
  // What the step that drafts() was asked for did: its seconds, and tokens for each request in it.
  void measured(double seconds, double tokens_per_request);

 private:
  enum class Phase { kTryPlain, kTryDrafts, kKeep };
  struct Rate {
    double seconds = 0.0, tokens = 0.0;
    [[nodiscard]] double per_second() const { return seconds > 0.0 ? tokens / seconds : 0.0; }
  };
  Phase phase_ = Phase::kTryPlain;
  uint32_t steps_ = 0;  // of the phase
  Rate plain_, drafted_;
};

}  // namespace hadal::runtime
