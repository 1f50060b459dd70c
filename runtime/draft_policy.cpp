#include "hadal/runtime/draft_policy.h"

namespace hadal::runtime {

bool DraftPolicy::drafts() const {
  if (phase_ == Phase::kKeep) return drafted_.per_second() > plain_.per_second();
  return phase_ == Phase::kTryDrafts;
}

void DraftPolicy::measured(double seconds, double tokens_per_request) {
  ++steps_;
  // The first step of a kind may compile shaders, and the first with drafts has none to verify yet.
  if (phase_ != Phase::kKeep && steps_ > 2) {
    Rate& rate = phase_ == Phase::kTryDrafts ? drafted_ : plain_;
    rate.seconds += seconds, rate.tokens += tokens_per_request;
  }
  if (steps_ < (phase_ == Phase::kKeep ? kKeepSteps : kTrySteps)) return;
  steps_ = 0;
  if (phase_ == Phase::kTryPlain) {
    phase_ = Phase::kTryDrafts;
  } else if (phase_ == Phase::kTryDrafts) {
    phase_ = Phase::kKeep;
  } else {
    phase_ = Phase::kTryPlain;
    plain_ = drafted_ = {};
  }
}

}  // namespace hadal::runtime
