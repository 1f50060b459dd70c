// All ways in which a text so far can be read, as one number: sets of stacks. A stack's top is a
// frame, a place inside a node's text; below it is the set of stacks that go on when that text
// ends. Equal sets have equal numbers, and stacks with the same top share one entry, so ambiguous
// grammars cost what their frames cost, not what their readings do.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hadal::runtime::grammar {

struct Frame {
  uint32_t node = 0;
  uint32_t state = 0;
  uint64_t count = 0, detail = 0;
  auto operator<=>(const Frame&) const = default;
};

class StackSets {
 public:
  static constexpr uint32_t kNothing = 0;
  struct Entry {
    Frame frame;
    uint32_t below = kNothing;
    auto operator<=>(const Entry&) const = default;
  };
  StackSets();

  [[nodiscard]] std::span<const Entry> entries(uint32_t set) const {
    return {entries_.data() + sets_[set].begin, sets_[set].count};
  }
  // The set of these stacks, in any order, also repeated; changes `entries`.
  [[nodiscard]] uint32_t intern(std::vector<Entry>& entries);
  [[nodiscard]] uint32_t intern(const Entry& entry) { return intern_sorted({&entry, 1}); }

  // Sets made after `mark` are forgotten; no others contain them.
  [[nodiscard]] uint32_t mark() const { return uint32_t(sets_.size()); }
  void release(uint32_t mark);

 private:
  struct Set {
    uint32_t begin = 0, count = 0;
    uint32_t next = kNothing;  // made before, in the same bucket
    uint64_t hash = 0;
  };
  [[nodiscard]] uint32_t intern_sorted(std::span<const Entry> entries);
  [[nodiscard]] uint32_t unite(uint32_t a, uint32_t b);
  void grow();

  std::vector<Entry> entries_;
  std::vector<Set> sets_;
  std::vector<uint32_t> buckets_;  // the latest set of each
};

}  // namespace hadal::runtime::grammar
