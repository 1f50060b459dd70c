#include "hadal/runtime/token_history.h"

#include <cassert>

namespace hadal::runtime {

TokenHistory::TokenHistory(const SamplingOptions& o, std::span<const uint32_t> prompt)
    : counts_(o.repetition_penalty != 1.0f || o.presence_penalty != 0.0f ||
              o.frequency_penalty != 0.0f) {
  for (const LogitBias& bias : o.logit_bias) {
    if (bias.value != 0.0f) edit(bias.id).bias = bias.value;
  }
  if (o.repetition_penalty == 1.0f) return;
  for (const uint32_t id : prompt) ++edit(id).prompt;
}

LogitEdit& TokenHistory::edit(uint32_t id) {
  const auto [place, added] = places_.try_emplace(id, uint32_t(edits_.size()));
  if (added) edits_.push_back({id, 0, 0, 0.0f});
  return edits_[place->second];
}

void TokenHistory::push(uint32_t id) {
  generated_.push_back(id);
  if (counts_) ++edit(id).generated;
}

void TokenHistory::pop() {
  const uint32_t id = generated_.back();
  generated_.pop_back();
  if (!counts_) return;
  LogitEdit& undone = edit(id);
  --undone.generated;
  if (undone != LogitEdit{id, 0, 0, 0.0f}) return;
  // Its push added the entry, and what later ones added is gone.
  assert(&undone == &edits_.back());
  edits_.pop_back();
  places_.erase(id);
}

}  // namespace hadal::runtime
