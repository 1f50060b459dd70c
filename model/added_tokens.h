// Finds the added tokens of a tokenizer.json in a text. Private to the tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hadal/status.h"

namespace hadal::model::detail {

// Names as in tokenizer.json.
struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool single_word = false;  // only where no word character is next to it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for after all that are not (there is no normalizer here)
  bool special = false;
};

// One stretch of a text: an added token, or text between them (id == kText).
struct Segment {
  static constexpr uint32_t kText = UINT32_MAX;
  uint32_t id = kText;
  std::string_view text;  // empty for an added token
};

class AddedTokens {
 public:
  // The longest content bounds the steps per byte of a hostile text; published ones have up to 60.
  static constexpr size_t kMaxContentBytes = 256;

  void add(const AddedToken& token);  // content 1 .. kMaxContentBytes

  // Cuts `text`. Leftmost match first, longest among those that start there.
  [[nodiscard]] std::vector<Segment> split(std::string_view text) const;

 private:
  // A trie over bytes; node 0 is the root, `children` maps node << 8 | byte to a node.
  struct Matcher {
    std::vector<AddedToken> tokens;
    std::unordered_map<uint64_t, uint32_t> children;
    std::vector<uint32_t> token_of_node = {Segment::kText};  // index into tokens
    bool starts[256] = {};

    void add(const AddedToken& token);
    // Index of the longest token that `text` starts with, or kText.
    [[nodiscard]] uint32_t longest(std::string_view text) const;
    void split(std::string_view text, std::vector<Segment>& out) const;
  };

  Matcher first_, second_;  // tokens that are not normalized, those that are
};

}  // namespace hadal::model::detail
