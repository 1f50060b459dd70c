#include "hadal/runtime/swap.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <numeric>

namespace hadal::runtime {

SwapSpace::SwapSpace(uint32_t pages) : total_(pages), free_(pages) {
  std::iota(free_.begin(), free_.end(), 0u);  // ascending is a heap with the smallest on top
}

std::vector<uint32_t> SwapSpace::take(uint32_t count) {
  assert(count <= free_pages());
  std::vector<uint32_t> taken;
  while (taken.size() < count) {
    std::pop_heap(free_.begin(), free_.end(), std::greater<>());
    taken.push_back(free_.back());
    free_.pop_back();
  }
  return taken;
}

void SwapSpace::give_back(std::span<const uint32_t> pages) {
  for (const uint32_t page : pages) {
    free_.push_back(page);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
  assert(free_pages() <= total_);
}

bool SwapPolicy::keeps(const Rows& rows, const RunningMean& token_seconds,
                       const RunningMean& row_seconds) const {
  if (!page_seconds_.known() || (rows.prompt && !token_seconds.known()) ||
      (rows.generated && !row_seconds.known())) {
    return false;
  }
  const double computed_again = rows.prompt - found_.value() * rows.whole_pages;
  const double drop = computed_again * token_seconds.value() + rows.generated * row_seconds.value();
  return 2.0 * rows.pages * page_seconds_.value() < drop;
}

void SwapPolicy::moved(uint32_t pages, double seconds) {
  if (pages) page_seconds_.add(seconds / pages);
}

void SwapPolicy::returned(uint32_t whole_pages, uint32_t found) {
  if (whole_pages) found_.add(double(std::min(found, whole_pages)) / whole_pages);
}

}  // namespace hadal::runtime
