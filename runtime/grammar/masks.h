// What one request's TokenMask calls: the readings of its text so far, and which tokens may follow.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "hadal/runtime/json_grammar.h"
#include "nodes.h"
#include "stepper.h"
#include "token_trie.h"

namespace hadal::runtime {

using MaskBits = std::vector<uint32_t>;  // as TokenMask has them

namespace grammar {

// Where the plain tokens lead from a state of an automaton, lengths aside.
struct Landings {
  struct Group {
    uint16_t state = 0;
    uint64_t characters = 0;  // that the tokens complete
    std::vector<uint32_t> tokens;
  };
  std::vector<Group> groups;
  MaskBits all;  // of all groups
};

// Those that were asked for, by automaton and state. Thread-safe.
class LandingCache {
 public:
  std::shared_ptr<const Landings> get(const TokenTrie& plain, size_t vocab, uint32_t dfa_id,
                                      const ByteDfa& dfa, uint16_t state);

 private:
  static constexpr size_t kKept = 32;  // of about 0.5 MB at 129,280 tokens
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<const Landings>> kept_;
};

}  // namespace grammar

struct GrammarVocabulary::Impl {
  std::vector<std::string> token_bytes;
  std::vector<uint32_t> end_ids;
  // Tokens with a quote or backslash; others with a control character, which no string contains;
  // all others, which cannot end a string.
  grammar::TokenTrie quoting, control, plain;
  mutable grammar::LandingCache landings;  // of strings without a pattern, the same in all grammars
  [[nodiscard]] bool is_end(uint32_t id) const;
};

struct JsonGrammar::Impl {
  std::shared_ptr<const GrammarVocabulary> vocabulary;
  grammar::Nodes nodes;
  mutable grammar::LandingCache landings;  // of patterns
  // Adds the plain tokens that fit at a place inside a string. Thread-safe.
  void add_plain_tokens(const grammar::InString& place, MaskBits& bits) const;
};

namespace grammar {

class RequestMasks {
 public:
  explicit RequestMasks(std::shared_ptr<const JsonGrammar::Impl> grammar);
  // TokenMask. Thread-safe.
  void fill(std::span<const uint32_t> generated, std::span<uint32_t> allowed);

 private:
  struct Step {
    uint32_t token = 0;
    uint32_t set = StackSets::kNothing;  // behind it
    uint32_t mark = 0;                   // of the sets then
    bool ended = false;                  // by an end token
  };
  void follow(std::span<const uint32_t> generated);
  [[nodiscard]] Step behind(const Step& step, uint32_t token);
  [[nodiscard]] const MaskBits& mask(uint32_t set);
  void compute(uint32_t set, MaskBits& bits);
  void add_walked(uint32_t set, const TokenTrie& trie, MaskBits& bits);

  std::shared_ptr<const JsonGrammar::Impl> grammar_;
  std::mutex mutex_;
  Stepper stepper_;
  std::vector<Step> steps_;  // [0] before any token
  // Masks of the sets asked about last.
  static constexpr size_t kKept = 16;
  std::list<std::pair<uint32_t, MaskBits>> kept_;  // the latest first
};

}  // namespace grammar
}  // namespace hadal::runtime
