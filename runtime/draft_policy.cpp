#include "hadal/runtime/draft_policy.h"

#include <algorithm>
#include <bit>

namespace hadal::runtime {
namespace {

constexpr double kMemorySteps = 64.0;
constexpr double kMargin = 1.02;        // by which another way must be better
constexpr double kOutlier = 4.0;        // times the mean: somebody else had the machine
constexpr double kCreditToStart = 2.0;  // steps of the kept way, that a trial can go on for a while
constexpr double kMostCredit = 16.0;    // steps: not all that was saved in an hour at once

}  // namespace

void DraftPolicy::Way::add(double step_seconds, double step_tokens) {
  constexpr double kKeep = 1.0 - 1.0 / kMemorySteps;
  seconds = seconds * kKeep + step_seconds;
  tokens = tokens * kKeep + step_tokens;
  steps = steps * kKeep + 1.0;
  ++counted;
}

DraftPolicy::DraftPolicy(uint32_t ways) {
  for (Load& load : loads_) load.ways.resize(std::max(ways, 1u));
}

uint32_t DraftPolicy::way() const {
  const Load& load = loads_[load_];
  return load.tried != kNone ? load.tried : load.kept;
}

void DraftPolicy::measured(uint32_t number, uint32_t requests, double seconds,
                           double tokens_per_request) {
  load_ = uint32_t(std::bit_width(requests));
  Load& load = loads_[load_];
  Way& way = load.ways[number];
  ++load.steps;
  const Way& kept = load.ways[load.kept];
  if (way.warm) {
    if (way.counted >= 4) seconds = std::min(seconds, kOutlier * way.step_seconds());
    way.add(seconds, tokens_per_request);
  } else {
    // The first step of a way may compile shaders: it says nothing of the next, but costs.
    way.warm = true;
    seconds = std::min(seconds, kMostCredit * kept.step_seconds());
  }
  load.credit += kLossShare * seconds;
  if (number != load.kept && kept.rate() > 0.0) {
    load.credit -= seconds - tokens_per_request / kept.rate();
  }
  load.credit = std::min(load.credit, kMostCredit * kept.step_seconds());
  judge(load);
}

void DraftPolicy::judge(Load& load) {
  if (load.tried != kNone) {
    if (load.ways[load.tried].counted >= kTrialSteps) {
      end_trial(load);
    } else if (load.credit <= 0.0) {
      load.tried = kNone;  // and goes on later
    }
    return;
  }
  Way& kept = load.ways[load.kept];
  const Way& plain = load.ways[0];
  if (load.kept != 0 && kept.rate() < plain.rate()) {
    kept.next_trial = load.steps + kPauseSteps / 4, kept.counted = 0;
    load.kept = 0;
  }
  start_trial(load);
}

void DraftPolicy::end_trial(Load& load) {
  Way& tried = load.ways[load.tried];
  Way& kept = load.ways[load.kept];
  if (tried.rate() > kept.rate() * kMargin) {
    kept.pause = tried.pause = kPauseSteps;
    kept.next_trial = load.steps + kPauseSteps, kept.counted = 0;
    load.kept = load.tried;
  } else {
    tried.next_trial = load.steps + tried.pause, tried.counted = 0;
    tried.pause = std::min(2 * tried.pause, kMostPauseSteps);
  }
  load.tried = kNone;
}

void DraftPolicy::start_trial(Load& load) {
  const Way& kept = load.ways[load.kept];
  if (load.credit < kCreditToStart * kept.step_seconds() || kept.rate() == 0.0) return;
  for (uint32_t i = 0; i < load.ways.size(); ++i) {
    const Way& way = load.ways[i];
    if (i == load.kept || way.next_trial > load.steps) continue;
    if (load.tried == kNone || way.next_trial < load.ways[load.tried].next_trial) load.tried = i;
  }
  if (load.tried == kNone) return;
  Way& tried = load.ways[load.tried];
  // A new trial, not one that goes on: what was measured long ago says nothing.
  if (tried.counted == 0) tried.seconds = tried.tokens = tried.steps = 0.0;
}

}  // namespace hadal::runtime
