#include "schema_compiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <unordered_map>

#include "decimal.h"
#include "formats.h"
#include "regex.h"
#include "schema_merge.h"

namespace hadal::runtime::grammar {
namespace {

constexpr size_t kMaxDepth = 400;        // of schemas inside schemas, $refs followed
constexpr size_t kMaxOneOf = 128;        // their pairs are compared
constexpr size_t kMaxAllStates = 32768;  // of the automata of all patterns

constexpr std::string_view kKeywords[] = {"$ref",
                                          "allOf",
                                          "anyOf",
                                          "oneOf",
                                          "enum",
                                          "const",
                                          "type",
                                          "properties",
                                          "required",
                                          "additionalProperties",
                                          "items",
                                          "minItems",
                                          "maxItems",
                                          "prefixItems",
                                          "minLength",
                                          "maxLength",
                                          "pattern",
                                          "format",
                                          "minimum",
                                          "maximum",
                                          "multipleOf",
                                          "exclusiveMinimum",
                                          "exclusiveMaximum"};

using Type = Value::Type;

class Compiler {
 public:
  explicit Compiler(const Value& root) : root_(root), merger_(root) {
    result_.dfas.push_back(any_string());
    result_.dfas.push_back(any_plain_string());
    result_.nodes.emplace_back(EndNode());
  }

  Result<Nodes> run() {
    HADAL_ASSIGN(result_.root, schema(root_, "#"));
    return std::move(result_);
  }

 private:
  [[nodiscard]] static Status bad(const std::string& pointer, std::string_view rule,
                                  std::string_view got) {
    return schema_error(Errc::kInvalidArgument, pointer, fmt::format("{}, got {}", rule, got));
  }
  [[nodiscard]] static Status bad(const std::string& pointer, std::string_view rule,
                                  const Value& got) {
    return bad(pointer, rule, brief(got));
  }

  uint32_t add(Node node) {
    result_.nodes.push_back(std::move(node));
    return uint32_t(result_.nodes.size() - 1);
  }

  // The node of a schema; the same for the same text, whose $refs mean the same everywhere.
  Result<uint32_t> schema(const Value& value, const std::string& pointer) {
    std::string text = compact(value);
    HADAL_TRY(merger_.charge(text.size() / 16, pointer));
    const auto [known, added] = known_.try_emplace(std::move(text), 0);
    if (!added) return known->second;
    const uint32_t id = known->second = add(AnyOfNode());
    if (result_.nodes.size() > kMaxNodes) {
      return schema_error(Errc::kUnsupported, pointer,
                          fmt::format("schemas must be at most {}, got more", kMaxNodes));
    }
    if (++depth_ > kMaxDepth) {
      return schema_error(Errc::kUnsupported, pointer,
                          fmt::format("schemas must be at most {} deep, got more", kMaxDepth));
    }
    HADAL_ASSIGN(Node node, node_of(value, pointer));
    --depth_;
    result_.nodes[id] = std::move(node);
    return id;
  }

  Result<Node> node_of(const Value& value, const std::string& pointer) {
    if (value.is(Type::kBool)) {
      if (value.boolean) return typed_node(Value::object(), pointer);
      return Node(AnyOfNode());
    }
    if (!value.is(Type::kObject)) {
      return bad(pointer, "a schema must be an object or a boolean", value);
    }
    HADAL_TRY(check_keywords(value, pointer));
    if (value.find("$ref") || value.find("allOf")) {
      AnyOfNode alias;
      const auto counts = [](const auto& member) { return !is_annotation(member.key); };
      const Value* reference = value.find("$ref");
      if (reference && std::count_if(value.members.begin(), value.members.end(), counts) == 1) {
        HADAL_ASSIGN(const Value* target, merger_.resolve(*reference, pointer));
        HADAL_ASSIGN(const uint32_t part, schema(*target, reference->text));
        alias.choices.push_back(part);
      } else {
        HADAL_ASSIGN(const Value merged, merger_.expand(value, pointer));
        HADAL_ASSIGN(const uint32_t part, schema(merged, pointer));
        alias.choices.push_back(part);
      }
      return Node(std::move(alias));
    }
    if (value.find("anyOf")) return choice_node(value, "anyOf", pointer);
    if (value.find("oneOf")) return choice_node(value, "oneOf", pointer);
    if (value.find("enum") || value.find("const")) return literal_node(value, pointer);
    return typed_node(value, pointer);
  }

  static Status check_keywords(const Value& value, const std::string& pointer) {
    for (const auto& [key, unused] : value.members) {
      if (is_annotation(key)) continue;
      if (key == "uniqueItems" && unused.is(Type::kBool) && !unused.boolean) continue;
      if (std::find(std::begin(kKeywords), std::end(kKeywords), key) == std::end(kKeywords)) {
        return schema_error(Errc::kUnsupported, below(pointer, key),
                            fmt::format("keyword {} is not supported", brief(key)));
      }
    }
    return {};
  }

  Result<Node> choice_node(const Value& value, const std::string& key, const std::string& pointer) {
    const std::string place = below(pointer, key);
    const Value& choices = *value.find(key);
    if (!choices.is(Type::kArray) || choices.items.empty()) {
      return bad(place, "it must be a list of schemas", choices);
    }
    if (key == "oneOf") HADAL_TRY(check_one_of(choices, place));
    Value rest = Value::object();
    for (const auto& [name, part] : value.members) {
      if (name != key && !is_annotation(name)) rest.members.push_back({name, part});
    }
    AnyOfNode node;
    for (size_t i = 0; i < choices.items.size(); ++i) {
      const Value& choice = choices.items[i];
      HADAL_ASSIGN(const uint32_t part, schema(rest.members.empty() ? choice : both(rest, choice),
                                               below(place, std::to_string(i))));
      node.choices.push_back(part);
    }
    return Node(std::move(node));
  }

  Status check_one_of(const Value& choices, const std::string& place) {
    if (choices.items.size() > kMaxOneOf) {
      return schema_error(
          Errc::kUnsupported, place,
          fmt::format("it must have at most {} choices, got {}", kMaxOneOf, choices.items.size()));
    }
    std::vector<Value> expanded;
    for (const Value& choice : choices.items) {
      HADAL_ASSIGN(Value part, merger_.expand(choice, place));
      expanded.push_back(std::move(part));
    }
    for (size_t i = 0; i < expanded.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (!exclude_each_other(merger_, expanded[j], expanded[i])) {
          return schema_error(
              Errc::kUnsupported, place,
              fmt::format("oneOf needs choices that exclude each other by type or by a required "
                          "property's constants, got choices {} and {} (use anyOf)",
                          j, i));
        }
      }
    }
    return {};
  }

  Result<Node> literal_node(const Value& value, const std::string& pointer) {
    for (const auto& [key, unused] : value.members) {
      if (!is_annotation(key) && key != "enum" && key != "const" && key != "type") {
        return schema_error(Errc::kUnsupported, below(pointer, key),
                            fmt::format("keyword {} is not supported beside enum or const", key));
      }
    }
    const Value *list = value.find("enum"), *single = value.find("const");
    if (list && !list->is(Type::kArray)) {
      return bad(below(pointer, "enum"), "it must be a list", *list);
    }
    std::vector<Value> values;
    if (list) values = list->items;
    if (list && single)
      std::erase_if(values, [&](const Value& v) { return compact(v) != compact(*single); });
    if (!list) values.push_back(*single);
    HADAL_ASSIGN(const auto types, types_of(value, pointer));
    LiteralNode node;
    for (const Value& v : values) {
      if (!types.empty() && !has_type(v, types)) continue;
      node.listed.push_back(compact(v));
    }
    return Node(std::move(node));
  }

  static bool has_type(const Value& value, const std::vector<std::string>& types) {
    const auto listed = [&](std::string_view name) {
      return std::find(types.begin(), types.end(), name) != types.end();
    };
    switch (value.type) {
      case Type::kNull: return listed("null");
      case Type::kBool: return listed("boolean");
      case Type::kString: return listed("string");
      case Type::kArray: return listed("array");
      case Type::kObject: return listed("object");
      case Type::kNumber: break;
    }
    const auto number = parse_decimal(value.text);
    return listed("number") || (listed("integer") && number && *number % kUnitsPerOne == 0);
  }

  // Empty: any.
  Result<std::vector<std::string>> types_of(const Value& value, const std::string& pointer) {
    std::vector<std::string> types;
    const Value* type = value.find("type");
    if (type == nullptr) return types;
    const std::string place = below(pointer, "type");
    std::vector<Value> listed = type->items;
    if (!type->is(Type::kArray)) listed = {*type};
    for (const Value& item : listed) {
      constexpr std::string_view kTypes[] = {"null",   "boolean", "integer", "number",
                                             "string", "array",   "object"};
      if (!item.is(Type::kString) ||
          std::find(std::begin(kTypes), std::end(kTypes), item.text) == std::end(kTypes)) {
        return bad(place, "it must name types of JSON Schema", item);
      }
      types.push_back(item.text);
    }
    if (types.empty()) types.emplace_back("none");
    return types;
  }

  Result<Node> typed_node(const Value& value, const std::string& pointer) {
    HADAL_ASSIGN(auto types, types_of(value, pointer));
    if (types.empty()) types = {"object", "array", "string", "number", "boolean", "null"};
    const auto listed = [&](std::string_view name) {
      return std::find(types.begin(), types.end(), name) != types.end();
    };
    std::vector<Node> nodes;
    if (listed("object")) {
      HADAL_ASSIGN(Node node, object_node(value, pointer));
      nodes.push_back(std::move(node));
    }
    if (listed("array")) {
      HADAL_ASSIGN(Node node, array_node(value, pointer));
      nodes.push_back(std::move(node));
    }
    if (listed("string")) {
      HADAL_ASSIGN(Node node, string_node(value, pointer));
      nodes.push_back(std::move(node));
    }
    if (listed("number") || listed("integer")) {
      HADAL_ASSIGN(Node node, number_node(value, !listed("number"), pointer));
      nodes.push_back(std::move(node));
    }
    LiteralNode words;
    if (listed("boolean")) words.listed = {"true", "false"};
    if (listed("null")) words.listed.emplace_back("null");
    if (!words.listed.empty()) nodes.emplace_back(std::move(words));
    if (nodes.size() == 1) return std::move(nodes.front());
    AnyOfNode all;
    for (Node& node : nodes) all.choices.push_back(add(std::move(node)));
    return Node(std::move(all));
  }

  Result<Node> object_node(const Value& value, const std::string& pointer) {
    ObjectNode node;
    const Value *properties = value.find("properties"), *required = value.find("required");
    const Value* additional = value.find("additionalProperties");
    if (properties && !properties->is(Type::kObject)) {
      return bad(below(pointer, "properties"), "it must be an object", *properties);
    }
    if (required && !required->is(Type::kArray)) {
      return bad(below(pointer, "required"), "it must be a list of names", *required);
    }
    const Value rest = additional ? *additional : Value::of(properties == nullptr);
    HADAL_ASSIGN(const uint32_t rest_node, schema(rest, below(pointer, "additionalProperties")));
    node.additional = rest_node;
    std::unordered_map<std::string, size_t> places;
    for (size_t i = 0; properties && i < properties->members.size(); ++i) {
      const auto& [name, part] = properties->members[i];
      HADAL_ASSIGN(const uint32_t part_node,
                   schema(part, below(below(pointer, "properties"), name)));
      places[name] = node.properties.size();
      node.properties.push_back({name, part_node, false});
    }
    for (size_t i = 0; required && i < required->items.size(); ++i) {
      const Value& name = required->items[i];
      if (!name.is(Type::kString)) {
        return bad(below(pointer, "required"), "it must be a list of names", name);
      }
      const auto [place, added] = places.try_emplace(name.text, node.properties.size());
      if (added) node.properties.push_back({name.text, rest_node, true});
      node.properties[place->second].required = true;
    }
    return Node(std::move(node));
  }

  Result<Node> array_node(const Value& value, const std::string& pointer) {
    ArrayNode node;
    HADAL_TRY(count(value, "minItems", pointer, node.least));
    HADAL_TRY(count(value, "maxItems", pointer, node.most));
    if (const Value* prefix = value.find("prefixItems")) {
      const std::string place = below(pointer, "prefixItems");
      if (!prefix->is(Type::kArray)) return bad(place, "it must be a list of schemas", *prefix);
      for (size_t i = 0; i < prefix->items.size(); ++i) {
        HADAL_ASSIGN(const uint32_t part,
                     schema(prefix->items[i], below(place, std::to_string(i))));
        node.prefix.push_back(part);
      }
    }
    const Value* items = value.find("items");
    HADAL_ASSIGN(node.items, schema(items ? *items : Value::of(true), below(pointer, "items")));
    return Node(std::move(node));
  }

  Result<Node> string_node(const Value& value, const std::string& pointer) {
    StringNode node;
    HADAL_TRY(count(value, "minLength", pointer, node.least));
    HADAL_TRY(count(value, "maxLength", pointer, node.most));
    const Value *pattern = value.find("pattern"), *format = value.find("format");
    if (pattern && format) {
      return schema_error(Errc::kUnsupported, below(pointer, "format"),
                          "keyword format is not supported beside pattern");
    }
    if (!pattern && !format) return Node(node);
    const std::string place = below(pointer, pattern ? "pattern" : "format");
    const Value& text = pattern ? *pattern : *format;
    if (!text.is(Type::kString)) return bad(place, "it must be a string", text);
    std::optional<std::string> regex = text.text;
    if (format && !(regex = format_pattern(text.text))) {
      return schema_error(Errc::kUnsupported, place,
                          "format must be date, time, date-time, uuid or ipv4, got " + brief(text));
    }
    HADAL_ASSIGN(node.dfa, pattern_dfa(*regex, place));
    if (node.least > 0 || node.most != kNoLimit) {
      if (node.least > node.most) return Node(node);
      auto table = LengthTable::create(result_.dfas[node.dfa], node.least, node.most);
      if (!table.ok()) {
        return schema_error(table.status().code(), place, table.status().message());
      }
      table_bits_ += table->bits();
      if (table_bits_ > 4 * LengthTable::kMaxBits) {
        return schema_error(Errc::kUnsupported, place,
                            "patterns with lengths must be fewer or smaller, got too much");
      }
      node.table = std::make_shared<const LengthTable>(*std::move(table));
    }
    return Node(std::move(node));
  }

  Result<uint32_t> pattern_dfa(const std::string& regex, const std::string& place) {
    const auto [known, added] = patterns_.try_emplace(regex, uint32_t(result_.dfas.size()));
    if (!added) return known->second;
    const auto code_points = compile_regex(regex);
    if (!code_points.ok()) {
      return schema_error(code_points.status().code(), place, code_points.status().message());
    }
    auto dfa = encode_as_json(*code_points);
    if (!dfa.ok()) return schema_error(dfa.status().code(), place, dfa.status().message());
    pattern_states_ += dfa->states.size();
    if (pattern_states_ > kMaxAllStates) {
      return schema_error(
          Errc::kUnsupported, place,
          fmt::format("all patterns must have at most {} states, got more", kMaxAllStates));
    }
    result_.dfas.push_back(*std::move(dfa));
    return known->second;
  }

  // A count that JSON Schema wants to be an integer from 0; those beyond 2^53 are as good as none.
  static Status count(const Value& value, const char* key, const std::string& pointer,
                      uint64_t& out) {
    const Value* number = value.find(key);
    if (number == nullptr) return {};
    const auto units = number->is(Type::kNumber) ? parse_decimal(number->text) : std::nullopt;
    if (!units || *units < 0 || *units % kUnitsPerOne != 0) {
      return bad(below(pointer, key), "it must be an integer from 0", *number);
    }
    out = uint64_t(std::min<SignedWide>(*units / kUnitsPerOne, SignedWide{1} << 53));
    return {};
  }

  // minimum and the like, in units of 10^-15.
  static Status bound(const Value& value, const char* key, const std::string& pointer,
                      std::optional<SignedWide>& out) {
    const Value* number = value.find(key);
    if (number == nullptr) return {};
    if (!number->is(Type::kNumber)) {
      return bad(below(pointer, key), "it must be a number", *number);
    }
    out = parse_decimal(number->text);
    if (out) return {};
    return schema_error(Errc::kUnsupported, below(pointer, key),
                        fmt::format("it must have at most {} digits behind the point, got {}",
                                    kFractionDigits, number->text.substr(0, 40)));
  }

  Result<Node> number_node(const Value& value, bool integer, const std::string& pointer) {
    std::optional<SignedWide> least, most, above, under, multiple;
    HADAL_TRY(bound(value, "minimum", pointer, least));
    HADAL_TRY(bound(value, "maximum", pointer, most));
    HADAL_TRY(bound(value, "exclusiveMinimum", pointer, above));
    HADAL_TRY(bound(value, "exclusiveMaximum", pointer, under));
    HADAL_TRY(bound(value, "multipleOf", pointer, multiple));
    if (multiple) {
      const std::string place = below(pointer, "multipleOf");
      if (*multiple <= 0) return bad(place, "it must be above 0", *value.find("multipleOf"));
      if (!integer || *multiple % kUnitsPerOne != 0 || *multiple / kUnitsPerOne > INT64_MAX) {
        return schema_error(Errc::kUnsupported, place,
                            "multipleOf must be an integer beside the type integer, got " +
                                brief(*value.find("multipleOf")));
      }
    }
    if (!integer && !least && !most && !above && !under) return Node(FreeNumberNode());
    // From here in units of the last digit that may be written, bounds included.
    const SignedWide scale = integer ? kUnitsPerOne : 1;
    const auto down = [&](SignedWide v) { return v / scale - (v % scale < 0); };
    const auto up = [&](SignedWide v) { return v / scale + (v % scale > 0); };
    const SignedWide limit = kUnitsPerOne * kUnitsPerOne - 1;
    SignedWide low = integer ? SignedWide{INT64_MIN} : -limit;
    SignedWide high = integer ? SignedWide{INT64_MAX} : limit;
    if (least) low = std::max(low, up(*least));
    if (most) high = std::min(high, down(*most));
    if (above) low = std::max(low, down(*above) + 1);
    if (under) high = std::min(high, up(*under) - 1);
    BoundedNumberNode node;
    node.fraction_digits = integer ? 0 : kFractionDigits;
    if (multiple) node.multiple_of = uint64_t(*multiple / kUnitsPerOne);
    const auto magnitudes = [&](SignedWide from, SignedWide to, Wide& first, Wide& last) {
      if (from > to) return false;
      first = Wide(from), last = Wide(to);
      return last / node.multiple_of * node.multiple_of >= first;
    };
    node.has_positive =
        magnitudes(std::max<SignedWide>(low, 0), high, node.positive_least, node.positive_most);
    node.has_negative =
        magnitudes(std::max<SignedWide>(-high, 1), -low, node.negative_least, node.negative_most);
    return Node(node);
  }

  const Value& root_;
  SchemaMerger merger_;
  Nodes result_;
  std::unordered_map<std::string, uint32_t> known_;  // nodes by their schema's text
  std::map<std::string, uint32_t> patterns_;         // automata by their expression
  size_t depth_ = 0, pattern_states_ = 0, table_bits_ = 0;
};

}  // namespace

Result<Nodes> compile_schema(std::string_view text, uint32_t max_whitespace) {
  Value root = Value::object();
  if (text.empty()) {
    root.set("type", Value::of(std::string("object")));
  } else {
    HADAL_ASSIGN(root, parse_schema_text(text));
  }
  HADAL_ASSIGN(Nodes nodes, Compiler(root).run());
  nodes.max_whitespace = max_whitespace;
  HADAL_TRY(finish_nodes(nodes));
  return nodes;
}

}  // namespace hadal::runtime::grammar
