// See bpe.h. Short words take a scan over an array, which is faster than any queue; long ones a
// heap, without which a run of a million equal letters would take a quadratic number of steps.
#include "bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace hadal::model::detail {
namespace {

// Up to here the scan's n^2/2 comparisons cost less than the heap (measured: even at 40 to 100).
constexpr size_t kShortWord = 48;

uint64_t hash_pair(uint32_t left, uint32_t right) {
  uint64_t h = (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
  return h ^ h >> 32;
}

}  // namespace

// A run of bytes that is one token, in a doubly linked list over the array of all runs.
struct Bpe::Symbol {
  uint32_t id;
  uint32_t prev, next;  // kNoToken at the ends
  Merge merge;          // what this and the next one would become; rank kNoToken: nothing
};

Bpe::Bpe(size_t merge_count) {
  byte_tokens_.fill(kNoToken);
  slots_.resize(std::bit_ceil(2 * merge_count + 2));
  slot_mask_ = static_cast<uint32_t>(slots_.size() - 1);
}

size_t Bpe::slot_of(uint32_t left, uint32_t right) const {
  size_t slot = hash_pair(left, right) & slot_mask_;
  while (slots_[slot].left != kNoToken &&
         (slots_[slot].left != left || slots_[slot].right != right)) {
    slot = (slot + 1) & slot_mask_;
  }
  return slot;
}

void Bpe::add_merge(uint32_t left, uint32_t right, Merge merge) {
  slots_[slot_of(left, right)] = {left, right, merge};
}

void Bpe::encode(std::string_view word, std::vector<uint32_t>& ids) const {
  if (word.size() <= kShortWord) {
    uint32_t symbols[kShortWord];
    size_t count = 0;
    for (const char c : word) {
      const uint32_t id = byte_tokens_[static_cast<uint8_t>(c)];
      if (id != kNoToken) symbols[count++] = id;
    }
    merge_short(symbols, count, ids);
    return;
  }
  std::vector<uint32_t> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const uint32_t id = byte_tokens_[static_cast<uint8_t>(c)];
    if (id != kNoToken) symbols.push_back(id);
  }
  merge_long(symbols, ids);
}

void Bpe::merge_short(uint32_t* symbols, size_t count, std::vector<uint32_t>& ids) const {
  Merge merges[kShortWord];  // merges[i] is that of symbols i and i + 1
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoToken) break;
    symbols[best] = merges[best].id;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    std::copy(merges + best + 1, merges + count - 1, merges + best);
    --count;
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
  }
  ids.insert(ids.end(), symbols, symbols + count);
}

void Bpe::merge_long(const std::vector<uint32_t>& tokens, std::vector<uint32_t>& ids) const {
  const uint32_t count = static_cast<uint32_t>(tokens.size());
  std::vector<Symbol> symbols(count);
  std::vector<uint64_t> heap;  // rank << 32 | position: the order of merging
  const auto refresh = [&](uint32_t pos) {
    Symbol& s = symbols[pos];
    s.merge = s.next == kNoToken ? Merge{} : find(s.id, symbols[s.next].id);
    return s.merge.rank != kNoToken;
  };
  const auto key = [&](uint32_t pos) { return uint64_t{symbols[pos].merge.rank} << 32 | pos; };
  const auto push = [&](uint32_t pos) {
    heap.push_back(key(pos));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };

  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {tokens[i], i == 0 ? kNoToken : i - 1, i + 1 == count ? kNoToken : i + 1, {}};
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (refresh(i)) heap.push_back(key(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const uint32_t pos = static_cast<uint32_t>(top);
    Symbol& s = symbols[pos];
    // The pair may have changed since it was pushed. A changed pair spans more bytes, so it is
    // another token of another rank, and an absorbed symbol has no rank: equality means unchanged.
    if (s.merge.rank != top >> 32) continue;
    Symbol& right = symbols[s.next];
    s.id = s.merge.id;
    s.next = right.next;
    right.merge = Merge{};
    right.id = kNoToken;
    if (s.next != kNoToken) symbols[s.next].prev = pos;
    if (refresh(pos)) push(pos);
    if (s.prev != kNoToken && refresh(s.prev)) push(s.prev);
  }
  for (const Symbol& s : symbols) {
    if (s.id != kNoToken) ids.push_back(s.id);
  }
}

}  // namespace hadal::model::detail
