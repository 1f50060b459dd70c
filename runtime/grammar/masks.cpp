#include "masks.h"

#include <algorithm>

namespace hadal::runtime {

using grammar::InString;
using grammar::StackSets;
using grammar::Stepper;

namespace {

void set_bit(MaskBits& bits, uint32_t id) {
  bits[id / 32] |= 1u << id % 32;
}

void add_all(MaskBits& bits, const MaskBits& more) {
  for (size_t i = 0; i < bits.size(); ++i) bits[i] |= more[i];
}

}  // namespace

bool GrammarVocabulary::Impl::is_end(uint32_t id) const {
  return std::find(end_ids.begin(), end_ids.end(), id) != end_ids.end();
}

void JsonGrammar::Impl::add_plain_tokens(const InString& place, MaskBits& bits) const {
  const GrammarVocabulary::Impl& v = vocabulary->impl();
  grammar::LandingCache& cache = place.dfa <= grammar::Nodes::kPlainString ? v.landings : landings;
  const grammar::ByteDfa& dfa = nodes.dfas[place.dfa];
  const auto landed = cache.get(v.plain, v.token_bytes.size(), place.dfa, dfa, place.state);
  if (place.table == nullptr && place.most == grammar::kNoLimit) return add_all(bits, landed->all);
  for (const grammar::Landings::Group& group : landed->groups) {
    InString end = place;
    end.state = group.state, end.characters += group.characters;
    if (!Stepper::can_be_completed(dfa, end)) continue;
    for (const uint32_t token : group.tokens) set_bit(bits, token);
  }
}

namespace grammar {

std::shared_ptr<const Landings> LandingCache::get(const TokenTrie& plain, size_t vocab,
                                                  uint32_t dfa_id, const ByteDfa& dfa,
                                                  uint16_t state) {
  const uint64_t key = uint64_t{dfa_id} << 16 | state;
  {
    const std::lock_guard lock(mutex_);
    const auto known = kept_.find(key);
    if (known != kept_.end()) return known->second;
  }
  auto landed = std::make_shared<Landings>();
  landed->all.resize((vocab + 31) / 32);
  std::unordered_map<uint64_t, size_t> groups;  // by state and characters
  struct At {
    uint16_t state = 0;
    uint32_t characters = 0;
  };
  walk(
      plain, At{state, 0},
      [&](At& at, uint8_t byte) {
        at.state = dfa.states[at.state].next[byte];
        at.characters += dfa.states[at.state].boundary;
        return at.state != ByteDfa::kDead;
      },
      [&](uint32_t token, const At& at) {
        const auto [group, added] =
            groups.try_emplace(uint64_t{at.state} << 32 | at.characters, landed->groups.size());
        if (added) landed->groups.push_back({at.state, at.characters, {}});
        landed->groups[group->second].tokens.push_back(token);
        set_bit(landed->all, token);
      });
  const std::lock_guard lock(mutex_);
  if (kept_.size() >= kKept) kept_.clear();
  kept_.insert_or_assign(key, landed);
  return landed;
}

RequestMasks::RequestMasks(std::shared_ptr<const JsonGrammar::Impl> grammar)
    : grammar_(std::move(grammar)), stepper_(grammar_->nodes) {
  steps_.push_back({0, stepper_.start(), stepper_.sets().mark(), false});
}

void RequestMasks::fill(std::span<const uint32_t> generated, std::span<uint32_t> allowed) {
  const std::lock_guard lock(mutex_);
  follow(generated);
  const Step& last = steps_.back();
  const auto allow = [&](uint32_t id) {
    if (id / 32 < allowed.size()) allowed[id / 32] |= 1u << id % 32;
  };
  if (!last.ended && last.set != StackSets::kNothing) {
    const MaskBits& bits = mask(last.set);
    std::copy_n(bits.begin(), std::min(bits.size(), allowed.size()), allowed.begin());
  }
  if (last.ended || stepper_.complete(last.set)) {
    for (const uint32_t id : grammar_->vocabulary->impl().end_ids) allow(id);
  }
}

// Goes back to what the spans have in common, then on.
void RequestMasks::follow(std::span<const uint32_t> generated) {
  size_t common = 0;
  while (common < std::min(generated.size(), steps_.size() - 1) &&
         steps_[common + 1].token == generated[common]) {
    ++common;
  }
  if (steps_.size() > common + 1) {
    steps_.resize(common + 1);
    const uint32_t mark = steps_.back().mark;
    stepper_.sets().release(mark);
    kept_.remove_if([&](const auto& entry) { return entry.first >= mark; });
  }
  for (const uint32_t token : generated.subspan(common)) {
    steps_.push_back(behind(steps_.back(), token));
  }
}

RequestMasks::Step RequestMasks::behind(const Step& step, uint32_t token) {
  const GrammarVocabulary::Impl& v = grammar_->vocabulary->impl();
  Step next{token, StackSets::kNothing, step.mark, false};
  if (v.is_end(token)) {
    next.ended = step.ended || stepper_.complete(step.set);
  } else if (!step.ended && token < v.token_bytes.size() && !v.token_bytes[token].empty()) {
    next.set = step.set;
    for (const char c : v.token_bytes[token]) next.set = stepper_.step(next.set, uint8_t(c));
  }
  next.mark = stepper_.sets().mark();
  return next;
}

const MaskBits& RequestMasks::mask(uint32_t set) {
  const auto known = std::find_if(kept_.begin(), kept_.end(),
                                  [&](const auto& entry) { return entry.first == set; });
  if (known != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, known);
  } else {
    if (kept_.size() < kKept) {
      kept_.emplace_front();
    } else {
      kept_.splice(kept_.begin(), kept_, std::prev(kept_.end()));
    }
    kept_.front().first = set;
    kept_.front().second.assign((grammar_->vocabulary->impl().token_bytes.size() + 31) / 32, 0);
    compute(set, kept_.front().second);
  }
  return kept_.front().second;
}

void RequestMasks::compute(uint32_t set, MaskBits& bits) {
  const GrammarVocabulary::Impl& v = grammar_->vocabulary->impl();
  StackSets& sets = stepper_.sets();
  const uint32_t mark = sets.mark();
  // Plain tokens stay inside strings, so what is around them does not matter.
  std::vector<StackSets::Entry> others;
  const auto entries = sets.entries(set);
  for (const StackSets::Entry& entry : entries) {
    if (const auto place = stepper_.in_string(entry.frame)) {
      grammar_->add_plain_tokens(*place, bits);
    } else {
      others.push_back(entry);
    }
  }
  const uint32_t outside = others.size() == entries.size() ? set : sets.intern(others);
  add_walked(outside, v.plain, bits);
  add_walked(outside, v.control, bits);
  add_walked(set, v.quoting, bits);
  sets.release(mark);
}

void RequestMasks::add_walked(uint32_t set, const TokenTrie& trie, MaskBits& bits) {
  if (set == StackSets::kNothing) return;
  walk(
      trie, set,
      [&](uint32_t& at, uint8_t byte) {
        at = stepper_.step(at, byte);
        return at != StackSets::kNothing;
      },
      [&](uint32_t token, uint32_t) { set_bit(bits, token); });
}

}  // namespace grammar
}  // namespace hadal::runtime
