// A schema's text as values: members in the order of the text, numbers as they were written.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hadal/status.h"

namespace hadal::runtime::grammar {

inline constexpr size_t kMaxSchemaBytes = 128 << 10;
inline constexpr size_t kMaxSchemaNesting = 64;

struct Member;  // of an object: a key and its value

struct Value {
  enum class Type : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };
  Type type = Type::kNull;
  bool boolean = false;
  std::string text;  // a string's UTF-8, a number's digits
  std::vector<Value> items;
  std::vector<Member> members;

  static Value of(bool value);
  static Value of(std::string value);
  static Value array();
  static Value object();
  [[nodiscard]] bool is(Type t) const { return type == t; }
  [[nodiscard]] const Value* find(std::string_view key) const;
  void set(std::string_view key, Value value);
};

struct Member {
  std::string key;
  Value value;
};

// Behind Member, which must be complete before a Value is made.
inline Value Value::of(bool value) {
  Value v;
  v.type = Type::kBool, v.boolean = value;
  return v;
}
inline Value Value::of(std::string value) {
  Value v;
  v.type = Type::kString, v.text = std::move(value);
  return v;
}
inline Value Value::array() {
  Value v;
  v.type = Type::kArray;
  return v;
}
inline Value Value::object() {
  Value v;
  v.type = Type::kObject;
  return v;
}

// Errors: kInvalidArgument for what is not JSON and for a key twice in one object; kUnsupported
// beyond kMaxSchemaBytes and kMaxSchemaNesting.
[[nodiscard]] Result<Value> parse_schema_text(std::string_view text);

// Appends a string as JSON, with the short escapes and \u00xx, quotes included.
void append_quoted(std::string_view text, std::string& out);
// The value as JSON without space.
void append_compact(const Value& value, std::string& out);
[[nodiscard]] std::string compact(const Value& value);

// For messages: at most about 60 bytes.
[[nodiscard]] std::string brief(const Value& value);
[[nodiscard]] std::string brief(std::string_view text);

// POINTER/KEY with ~ and / of the key escaped.
[[nodiscard]] std::string below(const std::string& pointer, std::string_view key);

}  // namespace hadal::runtime::grammar
