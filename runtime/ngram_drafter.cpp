#include "hadal/runtime/ngram_drafter.h"

#include <algorithm>

namespace hadal::runtime {
namespace {

// How many tokens up to index `at` equal those up to the last.
uint32_t agreement(std::span<const uint32_t> ids, uint32_t at) {
  const uint32_t last = uint32_t(ids.size()) - 1;
  const uint32_t most = std::min(NgramDrafter::kLongest, at + 1);
  uint32_t same = 0;
  while (same < most && ids[at - same] == ids[last - same]) ++same;
  return same;
}

}  // namespace

std::vector<uint32_t> NgramDrafter::draft(std::span<const uint32_t> ids, uint32_t depth) {
  if (before_.empty() && !ids.empty()) before_.push_back(0);  // no pair ends at the first token
  while (before_.size() < ids.size()) {
    const auto at = uint32_t(before_.size());
    uint32_t& latest = latest_[uint64_t{ids[at - 1]} << 32 | ids[at]];
    before_.push_back(latest);
    latest = at + 1;
  }
  if (ids.size() < kShortest) return {};
  uint32_t best = 0, longest = 0, places = 0;
  for (uint32_t at = before_[ids.size() - 1]; at && places < kMostPlaces && longest < kLongest;
       at = before_[at - 1], ++places) {
    const uint32_t same = agreement(ids, at - 1);
    if (same > longest) longest = same, best = at;
  }
  if (longest < kShortest) return {};
  const auto next = ids.subspan(best, std::min<size_t>(depth, ids.size() - best));
  return {next.begin(), next.end()};
}

}  // namespace hadal::runtime
