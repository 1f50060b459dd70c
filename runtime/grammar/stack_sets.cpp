#include "stack_sets.h"

#include <algorithm>

namespace hadal::runtime::grammar {
namespace {

uint64_t hash_of(std::span<const StackSets::Entry> entries) {
  uint64_t hash = entries.size();
  const auto mix = [&](uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  };
  for (const auto& [frame, below] : entries) {
    mix(uint64_t{frame.node} << 32 | frame.state), mix(frame.count), mix(frame.detail), mix(below);
  }
  return hash;
}

}  // namespace

StackSets::StackSets() : sets_(1), buckets_(256, kNothing) {}

uint32_t StackSets::intern(std::vector<Entry>& entries) {
  if (entries.size() > 1) {
    std::sort(entries.begin(), entries.end());
    size_t kept = 0;
    for (size_t i = 1; i < entries.size(); ++i) {
      if (entries[i].frame != entries[kept].frame) {
        entries[++kept] = entries[i];
      } else if (entries[i].below != entries[kept].below) {
        entries[kept].below = unite(entries[kept].below, entries[i].below);
      }
    }
    entries.resize(kept + 1);
  }
  return intern_sorted(entries);
}

uint32_t StackSets::unite(uint32_t a, uint32_t b) {
  std::vector<Entry> all(entries(a).begin(), entries(a).end());
  all.insert(all.end(), entries(b).begin(), entries(b).end());
  return intern(all);
}

uint32_t StackSets::intern_sorted(std::span<const Entry> entries) {
  if (entries.empty()) return kNothing;
  const uint64_t hash = hash_of(entries);
  for (uint32_t set = buckets_[hash & (buckets_.size() - 1)]; set != kNothing;
       set = sets_[set].next) {
    if (sets_[set].hash == hash && std::ranges::equal(this->entries(set), entries)) return set;
  }
  if (sets_.size() > buckets_.size()) grow();
  uint32_t& bucket = buckets_[hash & (buckets_.size() - 1)];
  sets_.push_back({uint32_t(entries_.size()), uint32_t(entries.size()), bucket, hash});
  entries_.insert(entries_.end(), entries.begin(), entries.end());
  return bucket = uint32_t(sets_.size() - 1);
}

void StackSets::grow() {
  buckets_.assign(buckets_.size() * 2, kNothing);
  for (uint32_t set = 1; set < sets_.size(); ++set) {
    uint32_t& bucket = buckets_[sets_[set].hash & (buckets_.size() - 1)];
    sets_[set].next = bucket, bucket = set;
  }
}

void StackSets::release(uint32_t mark) {
  // The latest set is the first of its bucket.
  while (sets_.size() > mark) {
    const Set& last = sets_.back();
    buckets_[last.hash & (buckets_.size() - 1)] = last.next;
    entries_.resize(last.begin);
    sets_.pop_back();
  }
}

}  // namespace hadal::runtime::grammar
