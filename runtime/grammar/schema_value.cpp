#include "schema_value.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

namespace hadal::runtime::grammar {
namespace {

using Json = nlohmann::json;

class ValueBuilder final : public nlohmann::json_sax<Json> {
 public:
  explicit ValueBuilder(Value& root) : root_(root) {}
  [[nodiscard]] const Status& status() const { return status_; }

  bool null() override { return put({}); }
  bool boolean(bool value) override { return put(Value::of(value)); }
  bool number_integer(number_integer_t value) override { return number(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return number(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return number(text); }
  bool string(string_t& value) override { return put(Value::of(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Value::object()); }
  bool start_array(std::size_t) override { return open(Value::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& key) override {
    if (!open_.back().keys.insert(key).second) {
      return fail(Errc::kInvalidArgument,
                  "#: every key must occur once in its object, got " + brief(key) + " twice");
    }
    open_.back().value->members.push_back({std::move(key), Value()});
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return fail(Errc::kInvalidArgument,
                fmt::format("#: text must be valid JSON, got an error at byte {}", position));
  }

 private:
  struct Open {
    Value* value;
    std::unordered_set<std::string> keys;
  };
  bool fail(Errc code, const std::string& message) {
    status_ = {code, "json_schema: " + message};
    return false;
  }
  bool number(std::string text) {
    Value value;
    value.type = Value::Type::kNumber, value.text = std::move(text);
    return put(std::move(value));
  }
  // Where the next value goes.
  Value* place() {
    if (open_.empty()) return &root_;
    Value& container = *open_.back().value;
    if (container.is(Value::Type::kObject)) return &container.members.back().value;
    return &container.items.emplace_back();
  }
  bool put(Value value) {
    *place() = std::move(value);
    return true;
  }
  bool open(Value empty) {
    if (open_.size() >= kMaxSchemaNesting) {
      return fail(Errc::kUnsupported,
                  fmt::format("#: nesting must be at most {} levels, got more", kMaxSchemaNesting));
    }
    Value* at = place();
    *at = std::move(empty);
    open_.push_back({at, {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  Value& root_;
  std::vector<Open> open_;  // outermost first
  Status status_;
};

}  // namespace

const Value* Value::find(std::string_view key) const {
  for (const auto& [name, value] : members) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Value::set(std::string_view key, Value value) {
  for (auto& [name, old] : members) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  members.push_back({std::string(key), std::move(value)});
}

Result<Value> parse_schema_text(std::string_view text) {
  if (text.size() > kMaxSchemaBytes) {
    return Status(Errc::kUnsupported,
                  fmt::format("json_schema: #: text must have at most {} bytes, got {}",
                              kMaxSchemaBytes, text.size()));
  }
  // The library takes a zero byte for the end and would accept anything behind it.
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("json_schema: #: text must be valid JSON, got an error at byte {}", zero + 1));
  }
  Value root;
  ValueBuilder builder(root);
  if (!Json::sax_parse(text, &builder)) return builder.status();
  return root;
}

void append_quoted(std::string_view text, std::string& out) {
  out += Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void append_compact(const Value& value, std::string& out) {
  switch (value.type) {
    case Value::Type::kNull: out += "null"; break;
    case Value::Type::kBool: out += value.boolean ? "true" : "false"; break;
    case Value::Type::kNumber: out += value.text; break;
    case Value::Type::kString: append_quoted(value.text, out); break;
    case Value::Type::kArray:
      out += '[';
      for (const Value& item : value.items) {
        if (&item != &value.items.front()) out += ',';
        append_compact(item, out);
      }
      out += ']';
      break;
    case Value::Type::kObject:
      out += '{';
      for (const auto& member : value.members) {
        if (&member != &value.members.front()) out += ',';
        append_quoted(member.key, out);
        out += ':';
        append_compact(member.value, out);
      }
      out += '}';
      break;
  }
}

std::string compact(const Value& value) {
  std::string out;
  append_compact(value, out);
  return out;
}

std::string brief(std::string_view text) {
  constexpr size_t kLongest = 56;
  std::string quoted;
  size_t end = std::min(text.size(), kLongest);
  // Not through a character.
  while (end < text.size() && end > 0 && (uint8_t(text[end]) & 0xc0) == 0x80) --end;
  append_quoted(text.substr(0, end), quoted);
  if (end < text.size()) quoted += "...";
  return quoted;
}

std::string brief(const Value& value) {
  if (value.is(Value::Type::kObject)) return "an object";
  if (value.is(Value::Type::kArray)) return fmt::format("a list of {}", value.items.size());
  if (value.is(Value::Type::kString)) return brief(std::string_view(value.text));
  return compact(value).substr(0, 60);
}

std::string below(const std::string& pointer, std::string_view key) {
  std::string out = pointer + "/";
  for (const char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace hadal::runtime::grammar
