// A vocabulary's bytes as a tree in the order of a walk, so that what many tokens begin with is
// looked at once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace hadal::runtime::grammar {

class TokenTrie {
 public:
  struct Node {
    uint8_t byte = 0;
    uint32_t depth = 0;        // of this byte in its tokens, from 0
    uint32_t after = 0;        // the node behind all that begin like this one
    uint32_t first_token = 0;  // up to the next node's
  };
  TokenTrie() : nodes_(1) {}
  // Ids with their bytes, none empty.
  explicit TokenTrie(std::vector<std::pair<std::string, uint32_t>> tokens);

  [[nodiscard]] std::span<const Node> nodes() const {
    return std::span(nodes_).first(nodes_.size() - 1);
  }
  // Those that end at a node.
  [[nodiscard]] std::span<const uint32_t> tokens(size_t node) const {
    return std::span(tokens_).subspan(nodes_[node].first_token,
                                      nodes_[node + 1].first_token - nodes_[node].first_token);
  }
  [[nodiscard]] uint32_t longest() const { return longest_; }

 private:
  std::vector<Node> nodes_;  // the last one is none
  std::vector<uint32_t> tokens_;
  uint32_t longest_ = 0;
};

// Calls at(state, byte), which moves the state behind the byte or returns false where no token of
// the vocabulary goes on, and found(token, state behind it) for each token that is passed.
template <class State, class At, class Found>
void walk(const TokenTrie& trie, const State& start, const At& at, const Found& found) {
  std::vector<State> states(trie.longest() + 1, start);
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  for (size_t n = 0; n < nodes.size();) {
    const TokenTrie::Node& node = nodes[n];
    State& next = states[node.depth + 1];
    next = states[node.depth];
    if (!at(next, node.byte)) {
      n = node.after;
      continue;
    }
    for (const uint32_t token : trie.tokens(n)) found(token, next);
    ++n;
  }
}

}  // namespace hadal::runtime::grammar
