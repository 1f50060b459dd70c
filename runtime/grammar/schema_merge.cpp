#include "schema_merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "decimal.h"

namespace hadal::runtime::grammar {
namespace {

constexpr size_t kMaxExpansions = 64;

constexpr std::string_view kAnnotations[] = {
    "$schema",  "$id",      "$comment",  "title",      "description",   "default", "example",
    "examples", "readOnly", "writeOnly", "deprecated", "discriminator", "$defs",   "definitions"};

bool same(const Value& a, const Value& b) {
  return compact(a) == compact(b);
}

// Equal for equal values: 1 and 1.0 are one number.
std::string identity(const Value& value) {
  if (value.is(Value::Type::kNumber)) {
    if (const auto number = parse_decimal(value.text)) {
      return fmt::format("{} {}", int64_t(*number / kUnitsPerOne), int64_t(*number % kUnitsPerOne));
    }
  }
  return compact(value);
}

// About the bytes that it takes to copy.
size_t size_of(const Value& value) {
  size_t size = 1 + value.text.size() / 16;
  for (const Value& item : value.items) size += size_of(item);
  for (const auto& member : value.members) size += 1 + size_of(member.value);
  return size;
}

std::string unescaped(std::string_view token) {
  std::string out;
  for (size_t i = 0; i < token.size(); ++i) {
    uint8_t byte = 0;
    if (token[i] == '%' && i + 2 < token.size() &&
        std::from_chars(&token[i + 1], &token[i + 1] + 2, byte, 16).ptr == &token[i + 1] + 2) {
      out += char(byte), i += 2;
    } else {
      out += token[i];
    }
  }
  std::string result;
  for (size_t i = 0; i < out.size(); ++i) {
    const bool tilde =
        out[i] == '~' && i + 1 < out.size() && (out[i + 1] == '0' || out[i + 1] == '1');
    result += tilde ? (out[++i] == '0' ? '~' : '/') : out[i];
  }
  return result;
}

// Values in both lists.
Value common(const Value& a, const Value& b) {
  Value out = Value::array();
  std::set<std::string> of_b;
  for (const Value& item : b.items) of_b.insert(identity(item));
  for (const Value& item : a.items) {
    if (of_b.count(identity(item))) out.items.push_back(item);
  }
  return out;
}

Value list_of(const Value& types) {
  if (types.is(Value::Type::kArray)) return types;
  Value out = Value::array();
  out.items.push_back(types);
  return out;
}

// Types in both lists; an integer is a number.
Value common_types(const Value& a, const Value& b) {
  const auto has = [](const Value& list, std::string_view type) {
    return std::any_of(list.items.begin(), list.items.end(),
                       [&](const Value& item) { return item.text == type; });
  };
  Value out = Value::array();
  for (const Value& item : a.items) {
    if (has(b, item.text) || (item.text == "integer" && has(b, "number"))) {
      out.items.push_back(item);
    } else if (item.text == "number" && has(b, "integer")) {
      out.items.push_back(Value::of(std::string("integer")));
    }
  }
  return out;
}

// What the schema says about a property that it does not list.
Value additional_of(const Value& schema) {
  const Value* value = schema.find("additionalProperties");
  return value ? *value : Value::of(true);
}

// A property is under its schema on each side, or under additionalProperties of a side that does
// not list it.
Value merged_properties(const Value& a, const Value& b) {
  Value out = Value::object();
  const Value none = Value::object();
  const Value* of_a = a.find("properties");
  const Value* of_b = b.find("properties");
  if (of_a == nullptr) of_a = &none;
  if (of_b == nullptr) of_b = &none;
  for (const auto& [name, schema] : of_a->members) {
    const Value* other = of_b->find(name);
    out.members.push_back({name, both(schema, other ? *other : additional_of(b))});
  }
  for (const auto& [name, schema] : of_b->members) {
    if (!of_a->find(name)) out.members.push_back({name, both(additional_of(a), schema)});
  }
  return out;
}

// The constants that a schema is limited to, or none.
const Value* constants(const Value& schema, Value& room) {
  if (const Value* values = schema.find("enum")) return values;
  const Value* value = schema.find("const");
  if (value == nullptr) return nullptr;
  room = Value::array();
  room.items.push_back(*value);
  return &room;
}

bool have_other_constants(const Value& a, const Value& b) {
  Value room_a, room_b;
  const Value *of_a = constants(a, room_a), *of_b = constants(b, room_b);
  return of_a && of_b && of_a->is(Value::Type::kArray) && of_b->is(Value::Type::kArray) &&
         common(*of_a, *of_b).items.empty();
}

bool requires_name(const Value& schema, const std::string& name) {
  const Value* required = schema.find("required");
  return required && std::any_of(required->items.begin(), required->items.end(),
                                 [&](const Value& item) { return item.text == name; });
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  return std::find(std::begin(kAnnotations), std::end(kAnnotations), keyword) !=
         std::end(kAnnotations);
}

Status schema_error(Errc code, const std::string& pointer, std::string_view text) {
  std::string place = pointer;
  if (place.size() > 200) place = place.substr(0, 100) + "..." + place.substr(place.size() - 90);
  return {code, fmt::format("json_schema: {}: {}", place, text)};
}

Value both(const Value& a, const Value& b) {
  const auto is_true = [](const Value& v) { return v.is(Value::Type::kBool) && v.boolean; };
  if (is_true(a) || same(a, b)) return b;
  if (is_true(b)) return a;
  Value out = Value::object(), list = Value::array();
  list.items = {a, b};
  out.set("allOf", std::move(list));
  return out;
}

Status SchemaMerger::charge(size_t units, const std::string& pointer) const {
  work_ += std::min(units, kMaxWork);
  if (work_ <= kMaxWork) return {};
  return schema_error(Errc::kUnsupported, pointer,
                      "schemas must repeat less of one another by $ref and allOf, got too much");
}

Result<const Value*> SchemaMerger::resolve(const Value& reference,
                                           const std::string& pointer) const {
  const std::string place = below(pointer, "$ref");
  if (!reference.is(Value::Type::kString)) {
    return schema_error(Errc::kInvalidArgument, place,
                        "it must be a string, got " + brief(reference));
  }
  std::string_view rest = reference.text;
  if (rest != "#" && !rest.starts_with("#/")) {
    return schema_error(Errc::kUnsupported, place,
                        "$ref must be # or start with #/, got " + brief(reference));
  }
  const Value* at = &root_;
  rest.remove_prefix(1);
  while (at != nullptr && !rest.empty()) {
    const size_t end = rest.find('/', 1);
    const std::string key = unescaped(rest.substr(1, end == rest.npos ? end : end - 1));
    rest = end == rest.npos ? std::string_view() : rest.substr(end);
    if (at->is(Value::Type::kArray)) {
      size_t index = 0;
      const auto parsed = std::from_chars(key.data(), key.data() + key.size(), index);
      const bool whole = parsed.ec == std::errc() && parsed.ptr == key.data() + key.size();
      at = whole && index < at->items.size() ? &at->items[index] : nullptr;
    } else {
      at = at->find(key);
    }
  }
  if (at == nullptr) {
    return schema_error(Errc::kInvalidArgument, place,
                        "$ref must lead to a part of this schema, got " + brief(reference));
  }
  return at;
}

Result<Value> SchemaMerger::expand(const Value& schema, const std::string& pointer,
                                   size_t depth) const {
  if (depth > kMaxExpansions) {
    return schema_error(Errc::kUnsupported, pointer,
                        fmt::format("$ref and allOf must be at most {} deep without a value "
                                    "between them, got more",
                                    kMaxExpansions));
  }
  if (schema.is(Value::Type::kBool)) return schema;
  if (!schema.is(Value::Type::kObject)) {
    return schema_error(Errc::kInvalidArgument, pointer,
                        "a schema must be an object or a boolean, got " + brief(schema));
  }
  HADAL_TRY(charge(size_of(schema), pointer));
  Value out = Value::object();
  for (const auto& [key, value] : schema.members) {
    if (!is_annotation(key) && key != "$ref" && key != "allOf") out.members.push_back({key, value});
  }
  if (const Value* reference = schema.find("$ref")) {
    HADAL_ASSIGN(const Value* target, resolve(*reference, pointer));
    HADAL_ASSIGN(const Value part, expand(*target, reference->text, depth + 1));
    HADAL_ASSIGN(out, merge(part, out, pointer));
  }
  const Value* all = schema.find("allOf");
  if (all && (!all->is(Value::Type::kArray) || all->items.empty())) {
    return schema_error(Errc::kInvalidArgument, below(pointer, "allOf"),
                        "it must be a list of schemas, got " + brief(*all));
  }
  for (size_t i = 0; all && i < all->items.size(); ++i) {
    const std::string place = below(below(pointer, "allOf"), std::to_string(i));
    HADAL_ASSIGN(const Value part, expand(all->items[i], place, depth + 1));
    HADAL_ASSIGN(out, merge(out, part, pointer));
  }
  return out;
}

Result<Value> SchemaMerger::merge(const Value& a, const Value& b,
                                  const std::string& pointer) const {
  if (a.is(Value::Type::kBool)) return a.boolean ? b : a;
  if (b.is(Value::Type::kBool)) return b.boolean ? a : b;
  const auto listed = [](const Value& v) {
    const Value* all = v.find("properties");
    return all ? all->members.size() : 0;
  };
  HADAL_TRY(charge(size_of(a) + size_of(b) + listed(a) * listed(b), pointer));
  Value out = a;
  const auto properties = [](const Value& v) {
    return v.find("properties") || v.find("additionalProperties");
  };
  const bool objects = properties(a) && properties(b);
  if (objects) {
    const Value merged = merged_properties(a, b);
    if (a.find("properties") || b.find("properties")) out.set("properties", merged);
    if (a.find("additionalProperties") || b.find("additionalProperties")) {
      out.set("additionalProperties", both(additional_of(a), additional_of(b)));
    }
  }
  for (const auto& [key, value] : b.members) {
    if (objects && (key == "properties" || key == "additionalProperties")) continue;
    HADAL_TRY(merge_keyword(out, key, value, pointer));
  }
  const auto lists = [](const Value& v) { return v.find("prefixItems") != nullptr; };
  const auto items = [&](const Value& v) { return v.find("items") || lists(v); };
  if (items(a) && items(b) && (lists(a) || lists(b)) &&
      !(a.find("prefixItems") && b.find("prefixItems") &&
        same(*a.find("prefixItems"), *b.find("prefixItems")))) {
    return schema_error(Errc::kUnsupported, pointer,
                        "prefixItems can only be merged with the same prefixItems");
  }
  return out;
}

Status SchemaMerger::merge_keyword(Value& into, const std::string& key, const Value& value,
                                   const std::string& pointer) const {
  const Value* old = into.find(key);
  if (old == nullptr) {
    into.members.push_back({key, value});
    return {};
  }
  if (same(*old, value)) return {};
  const bool arrays = old->is(Value::Type::kArray) && value.is(Value::Type::kArray);
  const bool numbers = old->is(Value::Type::kNumber) && value.is(Value::Type::kNumber);
  if (key == "type") {
    into.set(key, common_types(list_of(*old), list_of(value)));
  } else if (key == "enum" && arrays) {
    into.set(key, common(*old, value));
  } else if (key == "const") {
    into.set("enum", Value::array());  // two values at once
  } else if (key == "required" && arrays) {
    Value names = *old;
    for (const Value& name : value.items) {
      if (!requires_name(into, name.text)) names.items.push_back(name);
    }
    into.set(key, std::move(names));
  } else if (key == "items") {
    into.set(key, both(*old, value));
  } else if (numbers &&
             (key.starts_with("min") || key.starts_with("max") || key.starts_with("exclusive"))) {
    const auto a = parse_decimal(old->text), b = parse_decimal(value.text);
    const bool lower = key.starts_with("min") || key == "exclusiveMinimum";
    if (!a || !b) {
      return schema_error(Errc::kUnsupported, below(pointer, key),
                          fmt::format("it must have at most {} digits behind the point, got more",
                                      kFractionDigits));
    }
    if (lower ? *b > *a : *b < *a) into.set(key, value);
  } else {
    return schema_error(Errc::kUnsupported, pointer,
                        fmt::format("{} cannot be merged with another {} (allOf, or beside $ref, "
                                    "anyOf and oneOf)",
                                    key, key));
  }
  return {};
}

std::set<std::string> allowed_types(const Value& schema) {
  std::set<std::string> types;
  if (const Value* type = schema.find("type")) {
    for (const Value& item : list_of(*type).items) {
      types.insert(item.text == "integer" ? "number" : item.text);
    }
    return types;
  }
  return {"null", "boolean", "number", "string", "array", "object"};
}

bool exclude_each_other(const SchemaMerger& merger, const Value& a, const Value& b) {
  const auto is_false = [](const Value& v) { return v.is(Value::Type::kBool) && !v.boolean; };
  if (is_false(a) || is_false(b)) return true;
  if (!a.is(Value::Type::kObject) || !b.is(Value::Type::kObject)) return false;
  if (have_other_constants(a, b)) return true;
  std::set<std::string> shared;
  const std::set<std::string> of_a = allowed_types(a), of_b = allowed_types(b);
  std::set_intersection(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(),
                        std::inserter(shared, shared.end()));
  if (shared.empty()) return true;
  const Value *in_a = a.find("properties"), *in_b = b.find("properties");
  if (shared != std::set<std::string>{"object"} || !in_a || !in_b) return false;
  for (const auto& [name, schema] : in_a->members) {
    const Value* other = in_b->find(name);
    if (!other || !(requires_name(a, name) || requires_name(b, name))) continue;
    const auto first = merger.expand(schema, "#"), second = merger.expand(*other, "#");
    if (first.ok() && second.ok() && have_other_constants(*first, *second)) return true;
  }
  return false;
}

}  // namespace hadal::runtime::grammar
