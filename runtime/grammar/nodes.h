// A compiled schema: nodes, each the set of JSON texts of one schema, and what the steps of
// automata need to know about them. Immutable once finish_nodes has passed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "byte_dfa.h"

namespace hadal::runtime::grammar {

__extension__ using Wide = unsigned __int128;

inline constexpr uint64_t kNoLimit = UINT64_MAX;
inline constexpr uint32_t kNoNode = UINT32_MAX;

// Strings as a tree over their bytes. Position 0 is the root.
class ByteTrie {
 public:
  struct Position {
    std::vector<std::pair<uint8_t, uint32_t>> children;
    uint32_t value = kNoNode;      // of the string that ends here
    std::vector<uint32_t> values;  // of all that pass or end here, as far as they were allowed
  };
  // `allowed`: whether the value counts among those of each position.
  void add(std::string_view bytes, uint32_t value, bool allowed = true);
  [[nodiscard]] const Position& at(uint32_t position) const { return positions_[position]; }
  // kNoNode where none goes on.
  [[nodiscard]] uint32_t child(uint32_t position, uint8_t byte) const;
  [[nodiscard]] size_t size() const { return positions_.size(); }

 private:
  std::vector<Position> positions_ = std::vector<Position>(1);
};

// The end of the document: node 0, and no text's.
struct EndNode {};

struct AnyOfNode {
  std::vector<uint32_t> choices;  // once finished: no AnyOfNodes and at most one LiteralNode
};

struct StringNode {
  uint32_t dfa = 0;
  uint64_t least = 0, most = kNoLimit;
  std::shared_ptr<const LengthTable> table;  // where the automaton is not universal
};

// [lowest, highest] in units of 10^-fraction_digits, either of which may be negative.
struct BoundedNumberNode {
  bool has_negative = false, has_positive = false;
  Wide negative_least = 1, negative_most = 0;  // magnitudes below zero
  Wide positive_least = 0, positive_most = 0;  // zero and above
  uint32_t fraction_digits = 0;
  uint64_t multiple_of = 1;  // of integers
};

struct FreeNumberNode {};

struct LiteralNode {
  std::vector<std::string> listed;
  ByteTrie texts;  // by finish_nodes
};

struct ObjectNode {
  struct Property {
    std::string name;
    uint32_t value = 0;
    bool required = false;
  };
  std::vector<Property> properties;
  uint32_t additional = kNoNode;  // kNoNode: none
  // By finish_nodes:
  ByteTrie names;  // quoted, without the first quote; values are those of properties that may occur
  std::vector<uint32_t> next_required;  // [properties + 1]; its size where none follows
  std::vector<uint8_t> has_next;  // [properties + 1]: a property or an additional one may come
};

struct ArrayNode {
  std::vector<uint32_t> prefix;
  uint32_t items = kNoNode;  // behind the prefix; kNoNode: none
  uint64_t least = 0, most = kNoLimit;
};

using Node = std::variant<EndNode, AnyOfNode, StringNode, BoundedNumberNode, FreeNumberNode,
                          LiteralNode, ObjectNode, ArrayNode>;

struct Nodes {
  static constexpr uint32_t kAnyString = 0, kPlainString = 1;  // of dfas
  std::vector<Node> nodes;
  std::vector<ByteDfa> dfas;
  uint32_t root = 0;
  uint32_t max_whitespace = 0;
};

inline constexpr size_t kMaxNodes = 20000;
// Once finished, of all AnyOfNodes together, and of one, constants counted as one: each is a
// reading of its own for as long as it begins like others.
inline constexpr size_t kMaxAllChoices = 200000, kMaxChoices = 256;
inline constexpr size_t kMaxConstantBytes = 512 << 10;

// Removes what no finite text can be of, flattens choices among choices, and fills in what is
// marked above. Errors: kInvalidArgument where nothing is left of the root, kUnsupported beyond
// the limits above.
[[nodiscard]] Status finish_nodes(Nodes& grammar);

}  // namespace hadal::runtime::grammar
