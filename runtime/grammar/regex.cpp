// Makes a regular expression's automaton deterministic.
#include "regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "regex_nfa.h"

namespace hadal::runtime::grammar {
namespace {

using States = std::vector<uint32_t>;  // ascending

class Determiniser {
 public:
  explicit Determiniser(Nfa nfa) : nfa_(std::move(nfa)) {
    // The match may begin and end anywhere.
    const CodeSet any = {{0, 0x10ffff}};
    nfa_.sets.push_back(any);
    const uint32_t set = uint32_t(nfa_.sets.size() - 1), size = uint32_t(nfa_.states.size());
    const uint32_t before = size, skip = size + 1, after = size + 2;
    nfa_.states.push_back({Nfa::Step::kEmpty, 0, nfa_.start, skip});
    nfa_.states.push_back({Nfa::Step::kSet, set, before, Nfa::kNone});
    nfa_.states.push_back({Nfa::Step::kSet, set, after, Nfa::kNone});
    nfa_.states[nfa_.end].to = after;
    nfa_.start = before, nfa_.end = after;
    seen_.resize(nfa_.states.size());
    cut_classes();
  }

  Result<CodePointDfa> run() {
    // The first state is apart: only there a ^ holds.
    sets_.push_back(closure({nfa_.start}, true, false));
    dfa_.states.emplace_back();
    dfa_.states[0].accepts = accepts(sets_[0], true);
    for (uint32_t s = 0; s < dfa_.states.size(); ++s) {
      make_edges(s);
      if (steps_ > kMaxRegexSteps || dfa_.states.size() > kMaxRegexDfaStates) {
        return Status(Errc::kUnsupported,
                      fmt::format("pattern: its deterministic form must have at most {} states and "
                                  "take {} steps to make, got more",
                                  kMaxRegexDfaStates, kMaxRegexSteps));
      }
    }
    return std::move(dfa_);
  }

 private:
  // Cuts all code points where a set begins or ends: inside a class none tells two apart.
  void cut_classes() {
    std::vector<uint32_t> cuts = {0};
    for (const CodeSet& set : nfa_.sets) {
      for (const CodeRange& range : set) cuts.push_back(range.low), cuts.push_back(range.high + 1);
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    for (size_t i = 0; i < cuts.size() && cuts[i] <= 0x10ffff; ++i) {
      classes_.push_back({cuts[i], i + 1 < cuts.size() ? cuts[i + 1] - 1 : 0x10ffff});
    }
  }

  // All states that are reached over nothing.
  States closure(States from, bool at_begin, bool at_end) {
    States reached;
    const auto add = [&](uint32_t state) {
      if (state == Nfa::kNone || seen_[state]) return;
      seen_[state] = true;
      reached.push_back(state);
    };
    for (const uint32_t state : from) add(state);
    for (size_t i = 0; i < reached.size(); ++i) {
      const Nfa::State& state = nfa_.states[reached[i]];
      const bool passes = state.step == Nfa::Step::kEmpty ||
                          (state.step == Nfa::Step::kBegin && at_begin) ||
                          (state.step == Nfa::Step::kEnd && at_end);
      if (passes) add(state.to), add(state.also_to);
    }
    for (const uint32_t state : reached) seen_[state] = false;
    steps_ += reached.size();
    std::sort(reached.begin(), reached.end());
    return reached;
  }
  bool accepts(const States& states, bool at_begin) {
    const States ended = closure(states, at_begin, true);
    return std::binary_search(ended.begin(), ended.end(), nfa_.end);
  }

  void make_edges(uint32_t s) {
    // What changes, and where: only there the targets are looked for again.
    const States from = sets_[s];
    States stepping;
    for (const uint32_t state : from) {
      if (nfa_.states[state].step == Nfa::Step::kSet) stepping.push_back(state);
    }
    std::vector<CodePointDfa::Edge> edges;
    for (const CodeRange& range : classes_) {
      if (steps_ > kMaxRegexSteps || dfa_.states.size() > kMaxRegexDfaStates) return;
      States to;
      for (const uint32_t state : stepping) {
        if (contains(nfa_.sets[nfa_.states[state].set], range.low)) {
          to.push_back(nfa_.states[state].to);
        }
      }
      steps_ += stepping.size() + 1;
      if (to.empty()) continue;
      const uint32_t target = state_of(closure(std::move(to), false, false));
      if (!edges.empty() && edges.back().target == target &&
          edges.back().range.high + 1 == range.low) {
        edges.back().range.high = range.high;
      } else {
        edges.push_back({range, target});
      }
    }
    dfa_.states[s].edges = std::move(edges);
  }
  static bool contains(const CodeSet& set, uint32_t c) {
    const auto it = std::lower_bound(set.begin(), set.end(), c,
                                     [](const CodeRange& r, uint32_t v) { return r.high < v; });
    return it != set.end() && it->low <= c;
  }
  uint32_t state_of(States states) {
    // Once the match is over all strings match: what else goes on does not matter.
    if (std::binary_search(states.begin(), states.end(), nfa_.end)) states = {nfa_.end};
    const auto [it, added] = known_.try_emplace(states, uint32_t(dfa_.states.size()));
    if (added) {
      dfa_.states.emplace_back();
      dfa_.states.back().accepts = accepts(states, false);
      sets_.push_back(std::move(states));
    }
    return it->second;
  }

  Nfa nfa_;
  std::vector<CodeRange> classes_;
  CodePointDfa dfa_;
  std::vector<States> sets_;  // of the states of dfa_
  std::map<States, uint32_t> known_;
  std::vector<bool> seen_;
  size_t steps_ = 0;
};

}  // namespace

Result<CodePointDfa> compile_regex(std::string_view pattern) {
  HADAL_ASSIGN(Nfa nfa, parse_regex(pattern));
  return Determiniser(std::move(nfa)).run();
}

}  // namespace hadal::runtime::grammar
