#include "nodes.h"

#include <fmt/format.h>

#include <algorithm>

#include "schema_value.h"

namespace hadal::runtime::grammar {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// Finds the nodes that some finite text is of: those whose parts are, again and again.
class Finiteness {
 public:
  explicit Finiteness(const Nodes& grammar)
      : grammar_(grammar), finite_(grammar.nodes.size()), users_(grammar.nodes.size()) {}

  std::vector<bool> run() {
    for (uint32_t n = 0; n < grammar_.nodes.size(); ++n) note_users(n);
    for (uint32_t n = uint32_t(grammar_.nodes.size()); n-- > 0;) check(n);
    while (!open_.empty()) {
      const uint32_t node = open_.back();
      open_.pop_back();
      for (const uint32_t user : users_[node]) check(user);
    }
    return finite_;
  }

 private:
  void note_users(uint32_t n) {
    const auto uses = [&](uint32_t part) {
      if (part != kNoNode) users_[part].push_back(n);
    };
    std::visit(Overloaded{[](const auto&) {},
                          [&](const AnyOfNode& node) {
                            for (const uint32_t part : node.choices) uses(part);
                          },
                          [&](const ObjectNode& node) {
                            for (const auto& property : node.properties) {
                              if (property.required) uses(property.value);
                            }
                          },
                          [&](const ArrayNode& node) {
                            for (const uint32_t part : node.prefix) uses(part);
                            uses(node.items);
                          }},
               grammar_.nodes[n]);
  }
  void check(uint32_t n) {
    if (finite_[n] || !is_finite(grammar_.nodes[n])) return;
    finite_[n] = true;
    open_.push_back(n);
  }
  [[nodiscard]] bool is_finite(const Node& any) const {
    return std::visit(
        Overloaded{
            [](const auto&) { return true; },
            [&](const AnyOfNode& node) {
              return std::any_of(node.choices.begin(), node.choices.end(),
                                 [&](uint32_t part) { return finite_[part]; });
            },
            [&](const StringNode& node) {
              if (node.least > node.most) return false;
              const ByteDfa::State& start = grammar_.dfas[node.dfa].states[ByteDfa::kStart];
              return node.table ? node.table->live(0, ByteDfa::kStart) : start.boundary;
            },
            [](const BoundedNumberNode& node) { return node.has_negative || node.has_positive; },
            [](const LiteralNode& node) { return !node.listed.empty(); },
            [&](const ObjectNode& node) {
              return std::all_of(node.properties.begin(), node.properties.end(),
                                 [&](const auto& p) { return !p.required || finite_[p.value]; });
            },
            [&](const ArrayNode& node) {
              if (node.least > node.most) return false;
              const size_t listed = std::min<uint64_t>(node.prefix.size(), node.least);
              return std::all_of(node.prefix.begin(), node.prefix.begin() + ptrdiff_t(listed),
                                 [&](uint32_t part) { return finite_[part]; }) &&
                     (node.least <= listed || (node.items != kNoNode && finite_[node.items]));
            }},
        any);
  }

  const Nodes& grammar_;
  std::vector<bool> finite_;
  std::vector<std::vector<uint32_t>> users_;
  std::vector<uint32_t> open_;
};

// All LiteralNodes among the choices as one.
void merge_constants(Nodes& grammar, std::vector<uint32_t>& choices) {
  const auto is_literal = [&](uint32_t node) {
    return std::holds_alternative<LiteralNode>(grammar.nodes[node]);
  };
  if (std::count_if(choices.begin(), choices.end(), is_literal) < 2) return;
  LiteralNode all;
  for (const uint32_t node : choices) {
    const auto* literal = std::get_if<LiteralNode>(&grammar.nodes[node]);
    if (literal)
      all.listed.insert(all.listed.end(), literal->listed.begin(), literal->listed.end());
  }
  std::erase_if(choices, is_literal);
  choices.push_back(uint32_t(grammar.nodes.size()));
  grammar.nodes.emplace_back(std::move(all));
}

// The choices of an AnyOfNode and of those among them.
Status flatten(Nodes& grammar, const std::vector<bool>& finite) {
  std::vector<uint32_t> seen(grammar.nodes.size());
  std::vector<std::vector<uint32_t>> flat(grammar.nodes.size());
  size_t total = 0;
  for (uint32_t n = 0; n < flat.size(); ++n) {
    if (!std::holds_alternative<AnyOfNode>(grammar.nodes[n])) continue;
    std::vector<uint32_t> open = {n};
    seen[n] = n;
    for (size_t i = 0; i < open.size(); ++i) {
      const auto* choice = std::get_if<AnyOfNode>(&grammar.nodes[open[i]]);
      if (choice == nullptr) {
        flat[n].push_back(open[i]);
        continue;
      }
      for (const uint32_t part : choice->choices) {
        if (!finite[part] || seen[part] == n) continue;
        seen[part] = n;
        open.push_back(part);
      }
    }
    total += open.size();
    merge_constants(grammar, flat[n]);
    if (total > kMaxAllChoices || flat[n].size() > kMaxChoices) {
      return {Errc::kUnsupported,
              fmt::format("json_schema: #: choices must be at most {} of one schema and {} of all, "
                          "nested ones counted again, got more",
                          kMaxChoices, kMaxAllChoices)};
    }
  }
  for (uint32_t n = 0; n < flat.size(); ++n) {
    if (auto* choice = std::get_if<AnyOfNode>(&grammar.nodes[n])) {
      choice->choices = std::move(flat[n]);
    }
  }
  return {};
}

void finish(ObjectNode& node, const std::vector<bool>& finite) {
  const uint32_t count = uint32_t(node.properties.size());
  if (node.additional != kNoNode && !finite[node.additional]) node.additional = kNoNode;
  node.next_required.assign(count + 1, count);
  node.has_next.assign(count + 1, node.additional != kNoNode);
  for (uint32_t i = count; i-- > 0;) {
    const ObjectNode::Property& property = node.properties[i];
    node.next_required[i] = property.required ? i : node.next_required[i + 1];
    node.has_next[i] = finite[property.value] || node.has_next[i + 1];
  }
  for (uint32_t i = 0; i < count; ++i) {
    std::string quoted;
    append_quoted(node.properties[i].name, quoted);
    node.names.add(std::string_view(quoted).substr(1, quoted.size() - 2), i,
                   finite[node.properties[i].value]);
  }
}

void finish(ArrayNode& node, const std::vector<bool>& finite) {
  if (node.items != kNoNode && !finite[node.items]) node.items = kNoNode;
  for (size_t i = 0; i < node.prefix.size(); ++i) {
    if (!finite[node.prefix[i]]) {
      node.prefix.resize(i), node.items = kNoNode;
      break;
    }
  }
  if (node.items == kNoNode) node.most = std::min<uint64_t>(node.most, node.prefix.size());
}

}  // namespace

void ByteTrie::add(std::string_view bytes, uint32_t value, bool allowed) {
  uint32_t at = 0;
  if (allowed) positions_[at].values.push_back(value);
  for (const char c : bytes) {
    uint32_t next = child(at, uint8_t(c));
    if (next == kNoNode) {
      next = uint32_t(positions_.size());
      positions_[at].children.emplace_back(uint8_t(c), next);
      positions_.emplace_back();
    }
    at = next;
    if (allowed) positions_[at].values.push_back(value);
  }
  positions_[at].value = value;
}

uint32_t ByteTrie::child(uint32_t position, uint8_t byte) const {
  for (const auto& [edge, next] : positions_[position].children) {
    if (edge == byte) return next;
  }
  return kNoNode;
}

Status finish_nodes(Nodes& grammar) {
  const std::vector<bool> finite = Finiteness(grammar).run();
  if (!finite[grammar.root]) {
    return {Errc::kInvalidArgument,
            "json_schema: #: some document must satisfy it, got none that "
            "does"};
  }
  HADAL_TRY(flatten(grammar, finite));
  size_t constant_bytes = 0;
  for (Node& node : grammar.nodes) {
    if (auto* object = std::get_if<ObjectNode>(&node)) finish(*object, finite);
    if (auto* array = std::get_if<ArrayNode>(&node)) finish(*array, finite);
    if (auto* literal = std::get_if<LiteralNode>(&node)) {
      for (const std::string& text : literal->listed) constant_bytes += text.size();
      if (constant_bytes > kMaxConstantBytes) {
        return {
            Errc::kUnsupported,
            fmt::format("json_schema: #: constants must have at most {} bytes, those of choices "
                        "counted again, got more",
                        kMaxConstantBytes)};
      }
      for (const std::string& text : literal->listed) literal->texts.add(text, 0);
      literal->listed.clear();
    }
  }
  return {};
}

}  // namespace hadal::runtime::grammar
