// The automaton that tries all alternatives at once: what a regular expression is parsed to.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "byte_dfa.h"

namespace hadal::runtime::grammar {

using CodeSet = std::vector<CodeRange>;  // ascending, apart

struct Nfa {
  static constexpr uint32_t kNone = UINT32_MAX;
  enum class Step : uint8_t { kEmpty, kSet, kBegin, kEnd };
  // One step to `to`: over a character of set `set`, or over nothing, for kBegin only at the
  // string's begin and for kEnd only at its end. kEmpty may have a second way.
  struct State {
    Step step = Step::kEmpty;
    uint32_t set = 0;
    uint32_t to = kNone, also_to = kNone;
  };
  std::vector<State> states;
  std::vector<CodeSet> sets;
  uint32_t start = 0, end = 0;
};

// Errors: those of compile_regex.
[[nodiscard]] Result<Nfa> parse_regex(std::string_view pattern);

}  // namespace hadal::runtime::grammar
