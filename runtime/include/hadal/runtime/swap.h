// What becomes of a preempted request's pages: dropped, and their rows computed again later, or
// kept in host memory. Pure: which host pages are taken, and what either choice costs;
// hadal/runtime/page_transfer.h moves the bytes.
//
// Seconds of the choices, all from measured means:
//   keep  2 pages s_page                                s_page: a page's way in one direction
//   drop  (P - f W) s_token + G s_row                   P prompt rows, G generated rows in the
//   cache
// s_token and s_row are a prefilled token's and a decoded row's. W of the P rows lie in whole pages
// that stay known to the pool when the request leaves; the fraction f of such rows was still there
// when earlier requests came back. Keeping is chosen only when each mean that the comparison needs
// is known, and f is 0 until it is.
//
// Source: vLLM (SOSP 2023), section 4.5, for the choice between recomputation and swapping.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/runtime/running_mean.h"

namespace hadal::runtime {

// A page of the cache, and the page of host memory that its rows are copied to or from.
struct PageMove {
  uint32_t cache_page = 0, host_page = 0;
};

// Which of a number of host pages are taken; the lowest free ones go first. Not thread-safe.
class SwapSpace {
 public:
  explicit SwapSpace(uint32_t pages);
  [[nodiscard]] uint32_t total_pages() const { return total_; }
  [[nodiscard]] uint32_t free_pages() const { return uint32_t(free_.size()); }
  // At most free_pages().
  [[nodiscard]] std::vector<uint32_t> take(uint32_t count);
  void give_back(std::span<const uint32_t> pages);

 private:
  uint32_t total_;
  std::vector<uint32_t> free_;  // a heap, smallest on top
};

class SwapPolicy {
 public:
  // A request's rows in the cache.
  struct Rows {
    uint32_t prompt = 0, whole_pages = 0, generated = 0;  // P, W and G above, in rows
    uint32_t pages = 0;                                   // that hold them
  };
  // Whether keeping the rows costs less than computing them again.
  [[nodiscard]] bool keeps(const Rows& rows, const RunningMean& token_seconds,
                           const RunningMean& row_seconds) const;
  // `pages` went one way in `seconds`.
  void moved(uint32_t pages, double seconds);
  // A preempted request came back: `found` of the rows in `whole_pages` were still in the cache.
  void returned(uint32_t whole_pages, uint32_t found);

 private:
  RunningMean page_seconds_, found_;
};

}  // namespace hadal::runtime
