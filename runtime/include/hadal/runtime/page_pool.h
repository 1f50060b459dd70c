// Pages of the latent cache: who holds which, and what they hold. Host policy only; kernels see
// slots and block tables.
//
// A page is kPageTokens positions of a sequence. It is free, in use by one or more sequences (a
// reference count), or cached: used by nobody, its rows kept because their content is known. A
// sequence that begins with the same tokens takes cached or used pages over instead of computing
// them (match). What a page holds is known by the tokens from position 0 to its end, compared
// exactly, not by a hash alone, so that no input can make two contents equal.
//
// Source: vLLM's automatic prefix caching and SGLang's RadixAttention for the idea.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hadal/status.h"

namespace hadal::runtime {

inline constexpr uint32_t kPageTokens = 64;

// Who wrote a page's rows. Prefill and decode round differently, so a page with generated rows is
// another content than one of the same tokens that prefill wrote.
enum class PageOrigin : uint8_t {
  kPrefill,    // every row
  kGenerated,  // at least one row by decode
};

struct PagePoolStats {
  uint32_t total = 0, free = 0, cached = 0, used = 0;  // total = free + cached + used
  uint64_t wanted_pages = 0;                           // whole pages of the prompts given to match
  uint64_t matched_pages = 0;                          // of them, taken over
  uint64_t evicted_pages = 0;                          // cached pages given to somebody else
};

// Not thread-safe. Free pages are handed out lowest first, so that runs repeat.
class PagePool {
 public:
  explicit PagePool(uint32_t pages);
  [[nodiscard]] uint32_t total_pages() const { return uint32_t(pages_.size()); }
  // Pages that take() can give: free ones, and cached ones, the least recently used first.
  [[nodiscard]] uint32_t free_pages() const { return uint32_t(free_.size() + cached_.size()); }
  [[nodiscard]] PagePoolStats stats() const;

  // `count` pages with one reference each. Errors: kOutOfDeviceMemory with the numbers; then
  // nothing is taken.
  [[nodiscard]] Result<std::vector<uint32_t>> take(uint32_t count);
  // One reference more, or less, of each. Pages of a sequence are given back in its order.
  void retain(std::span<const uint32_t> pages);
  void give_back(std::span<const uint32_t> pages);
  [[nodiscard]] uint32_t references(uint32_t page) const { return pages_[page].references; }
  // Whether match() may give the page.
  [[nodiscard]] bool is_known(uint32_t page) const { return pages_[page].content != nullptr; }

  // The longest known prefix of `ids` in whole pages, each with one reference more. Pages with
  // generated rows only if `generated`: the sequence's bits are then not those of its own prefill.
  [[nodiscard]] std::vector<uint32_t> match(std::span<const uint32_t> ids, bool generated = false);
  // Says what the first ids.size() / kPageTokens pages of a sequence hold. Pages that are known
  // already, or whose content another page holds, stay as they are.
  void publish(std::span<const uint32_t> ids, std::span<const uint32_t> pages, PageOrigin origin);
  // Forgets what a page holds, before somebody writes into it.
  void forget(uint32_t page);
  // Forgets what every page holds: cached ones are free, those in use stay with their sequences.
  void forget_all();

 private:
  struct Content {
    uint64_t parent = 0;  // serial of the page before; 0: the first
    PageOrigin origin = PageOrigin::kPrefill;
    std::array<uint32_t, kPageTokens> ids{};
    bool operator==(const Content&) const = default;
  };
  struct ContentHash {
    size_t operator()(const Content& content) const;
  };
  struct Known {
    uint32_t page = 0;
    uint64_t serial = 0;  // never used again, so that pages behind an evicted one are not found
  };
  struct Page {
    uint32_t references = 0;
    uint64_t released = 0;  // when it became cached
    const Content* content = nullptr;
  };
  [[nodiscard]] const Known* find(uint64_t parent, PageOrigin origin,
                                  std::span<const uint32_t> ids) const;

  std::vector<Page> pages_;
  std::vector<uint32_t> free_;                             // a heap, smallest on top
  std::set<std::pair<uint64_t, uint32_t>> cached_;         // (released, page)
  std::unordered_map<Content, Known, ContentHash> known_;  // nodes stay where they are
  uint64_t last_serial_ = 0, last_release_ = 0;
  PagePoolStats stats_;
};

// A page whose rows have to be copied on the device before the next write to `to`.
struct PageCopy {
  uint32_t from = 0, to = 0;
};

// The pages of one sequence. Move-only; gives its pages back when it ends. The pool must outlive
// it.
class SequencePages {
 public:
  explicit SequencePages(PagePool& pool) : pool_(&pool) {}
  SequencePages(SequencePages&& other) noexcept;
  SequencePages& operator=(SequencePages&& other) noexcept;
  ~SequencePages();

  // Makes room for `length` positions in all. Errors: kOutOfDeviceMemory; then nothing changes.
  [[nodiscard]] Status reserve(uint32_t length);
  // Takes over the known pages that `prompt` begins with, but never its last token, whose hidden
  // state is wanted. Only while the sequence has no pages. Returns the positions covered.
  [[nodiscard]] uint32_t reuse(std::span<const uint32_t> prompt, bool generated = false);
  // Makes the whole pages of the first ids.size() positions known to others.
  void publish(std::span<const uint32_t> ids, PageOrigin origin);
  // A second sequence of the same pages.
  [[nodiscard]] SequencePages fork() const;
  // Called before a row of a position is written: a page that others hold too is replaced by a copy
  // of its own. Errors: kOutOfDeviceMemory; then nothing changes.
  [[nodiscard]] Result<std::optional<PageCopy>> make_writable(uint32_t position);
  // Gives back the pages behind the first `length` positions.
  void truncate(uint32_t length);

  // Cache row of a reserved position.
  [[nodiscard]] uint32_t slot(uint32_t position) const {
    return pages_[position / kPageTokens] * kPageTokens + position % kPageTokens;
  }
  [[nodiscard]] std::span<const uint32_t> block_table() const { return pages_; }
  [[nodiscard]] uint32_t capacity() const { return uint32_t(pages_.size()) * kPageTokens; }
  void clear() { truncate(0); }

 private:
  PagePool* pool_;
  std::vector<uint32_t> pages_;
};

}  // namespace hadal::runtime
