// Deterministic automata over the bytes between a JSON string's quotes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "hadal/status.h"

namespace hadal::runtime::grammar {

// Code points, both ends included.
struct CodeRange {
  uint32_t low = 0, high = 0;
};

// What a pattern compiles to: states over code points, 0 the first. Ranges ascend and do not
// overlap; a code point in none of them ends the match.
struct CodePointDfa {
  struct Edge {
    CodeRange range;
    uint32_t target = 0;
  };
  struct State {
    std::vector<Edge> edges;
    bool accepts = false;
  };
  std::vector<State> states;
};

struct ByteDfa {
  static constexpr uint16_t kDead = 0, kStart = 1;
  struct State {
    std::array<uint16_t, 256> next{};
    bool boundary = false;  // between two characters: what leads here completes one
    bool accepts = false;   // the string may end here; only between characters
  };
  std::vector<State> states;
  // Every state goes on, and every boundary accepts: a string of any length can be completed.
  bool universal = false;
};

inline constexpr size_t kMaxByteStates = 16384;

// The automaton over bytes of strings written in the one way of names and patterns: the short
// escapes where JSON needs one, else UTF-8. States that lead nowhere are dead; kStart may be.
// Errors: kUnsupported beyond kMaxByteStates.
[[nodiscard]] Result<ByteDfa> encode_as_json(const CodePointDfa& dfa);

// Any string, in the one way, and in every way that JSON has.
[[nodiscard]] ByteDfa any_plain_string();
[[nodiscard]] ByteDfa any_string();

// Which states of an automaton can still be completed, given how many characters went before:
// needed where lengths are limited and the automaton is not universal.
class LengthTable {
 public:
  static constexpr size_t kMaxBits = size_t{1} << 22;
  // `most`: UINT64_MAX without a limit. Errors: kUnsupported beyond kMaxBits.
  [[nodiscard]] static Result<LengthTable> create(const ByteDfa& dfa, uint64_t least,
                                                  uint64_t most);
  [[nodiscard]] size_t bits() const { return bits_.size(); }
  // `characters` at most min(most, least if there is no limit).
  [[nodiscard]] bool live(uint64_t characters, uint16_t state) const {
    return bits_[characters * states_ + state];
  }

 private:
  size_t states_ = 0;
  std::vector<bool> bits_;  // [characters, states]
};

}  // namespace hadal::runtime::grammar
