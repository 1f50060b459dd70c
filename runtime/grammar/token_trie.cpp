#include "token_trie.h"

#include <algorithm>

namespace hadal::runtime::grammar {

TokenTrie::TokenTrie(std::vector<std::pair<std::string, uint32_t>> tokens) {
  std::sort(tokens.begin(), tokens.end());
  std::vector<uint32_t> path;  // nodes of the bytes of the last token
  std::string_view last;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes_[path.back()].after = uint32_t(nodes_.size());
  };
  for (const auto& [bytes, id] : tokens) {
    size_t shared = 0;
    while (shared < std::min(last.size(), bytes.size()) && last[shared] == bytes[shared]) ++shared;
    close(shared);
    for (size_t i = shared; i < bytes.size(); ++i) {
      path.push_back(uint32_t(nodes_.size()));
      nodes_.push_back({uint8_t(bytes[i]), uint32_t(i), 0, uint32_t(tokens_.size())});
    }
    tokens_.push_back(id);
    longest_ = std::max(longest_, uint32_t(bytes.size()));
    last = bytes;
  }
  close(0);
  nodes_.push_back({0, 0, 0, uint32_t(tokens_.size())});
}

}  // namespace hadal::runtime::grammar
