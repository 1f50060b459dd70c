#include "serve/json.h"

#include <fmt/format.h>

#include <unordered_set>
#include <utility>

namespace hadal::serve {
namespace {

// Builds the document as the library does, but within limits, and without its search for the key
// at every member, which is quadratic in objects that keep their order.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(const JsonLimits& limits, Json& root) : limits_(limits), root_(root) {}

  [[nodiscard]] const std::string& error() const { return error_; }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& key) override {
    if (!open_.back().keys.insert(key).second) {
      return fail(
          fmt::format("every key must occur once in its object, got {} twice", excerpt(Json(key))));
    }
    auto& members = open_.back().value->get_ref<Json::object_t&>();
    members.push_back({std::move(key), nullptr});
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    // The library's words behind its own prefix quote bytes of the client: only the kind is kept.
    const std::string_view what = e.what();
    const bool utf8 = what.find("ill-formed UTF-8") != what.npos;
    const bool range = what.find("number overflow") != what.npos;
    return fail(fmt::format("{} at byte {}",
                            utf8    ? "text must be UTF-8, got ill-formed bytes"
                            : range ? "numbers must fit a double, got a larger one"
                                    : "text must be valid JSON, got something else",
                            position));
  }

 private:
  struct Open {
    Json* value = nullptr;
    std::unordered_set<std::string> keys;
  };
  bool fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }
  Json* place() {
    if (open_.empty()) return &root_;
    Json& around = *open_.back().value;
    if (around.is_object()) return &around.get_ref<Json::object_t&>().back().second;
    around.get_ref<Json::array_t&>().emplace_back();
    return &around.get_ref<Json::array_t&>().back();
  }
  bool count() {
    if (++values_ <= limits_.values) return true;
    return fail(fmt::format("values must be at most {}, got more", limits_.values));
  }
  bool put(Json value) {
    if (!count()) return false;
    *place() = std::move(value);
    return true;
  }
  bool open(Json empty) {
    if (!count()) return false;
    if (open_.size() >= limits_.depth) {
      return fail(fmt::format("nesting must be at most {} levels, got more", limits_.depth));
    }
    Json* here = place();
    *here = std::move(empty);
    open_.push_back({here, {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  Json& root_;
  std::vector<Open> open_;  // the containers around the current place, outermost first
  size_t values_ = 0;
  std::string error_;
};

}  // namespace

Outcome<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  const auto refuse = [](std::string message) {
    return ApiError{400, "body: " + std::move(message), "", "invalid_json", 0};
  };
  // The library takes a zero byte for the end of the text.
  if (text.find('\0') != text.npos) return refuse("text must be valid JSON, got a zero byte");
  Json root;
  Builder builder(limits, root);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) return refuse(builder.error());
  return root;
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  size_t plain = 0;  // where the text that needs no escape began
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, plain, i - plain);
    plain = i + 1;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default: fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
    }
  }
  out.append(text, plain);
  out += '"';
}

std::string excerpt(const Json& value) {
  constexpr size_t kMost = 60;
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  std::string text = dump(value);
  if (text.size() <= kMost) return text;
  size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

Fields::Fields(const Json& object, std::string prefix)
    : object_(&object), prefix_(std::move(prefix)) {
  if (object.is_object()) return;
  const std::string what =
      prefix_.empty() ? "body" : prefix_.substr(0, prefix_.size() - 1);  // without its point
  fail({400, fmt::format("{}: must be an object, got {}", what, excerpt(object)),
        prefix_.empty() ? "" : what, "", 0});
}

const Json* Fields::find(const char* key) const {
  if (failed_) return nullptr;
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

void Fields::boolean(const char* key, bool& out) {
  const Json* value = find(key);
  if (value == nullptr) return;
  if (!value->is_boolean()) return refuse(key, "must be true or false", *value);
  out = value->get<bool>();
}

void Fields::string(const char* key, std::string& out) {
  const Json* value = find(key);
  if (value == nullptr) return;
  if (!value->is_string()) return refuse(key, "must be a string", *value);
  out = value->get<std::string>();
}

void Fields::integer(const char* key, int64_t least, int64_t most, int64_t& out) {
  const Json* value = find(key);
  if (value == nullptr) return;
  const bool whole = value->is_number_integer() &&
                     !(value->is_number_unsigned() && value->get<uint64_t>() > uint64_t(INT64_MAX));
  if (!whole || value->get<int64_t>() < least || value->get<int64_t>() > most) {
    const std::string rule = most == INT64_MAX || most == UINT32_MAX
                                 ? fmt::format("must be a whole number of at least {}", least)
                                 : fmt::format("must be a whole number from {} to {}", least, most);
    return refuse(key, rule, *value);
  }
  out = value->get<int64_t>();
}

void Fields::integer(const char* key, int64_t least, int64_t most, uint32_t& out) {
  int64_t value = out;
  integer(key, least, most, value);
  out = uint32_t(value);
}

void Fields::number(const char* key, double least, double most, float& out) {
  const Json* value = find(key);
  if (value == nullptr) return;
  if (!value->is_number() || !(value->get<double>() >= least && value->get<double>() <= most)) {
    return refuse(key, fmt::format("must be a number from {} to {}", least, most), *value);
  }
  out = float(value->get<double>());
}

void Fields::refuse(const std::string& key, const std::string& rule, const Json& got) {
  fail({400, fmt::format("{}{}: {}, got {}", prefix_, key, rule, excerpt(got)), prefix_ + key, "",
        0});
}

void Fields::fail(ApiError error) {
  if (std::exchange(failed_, true)) return;
  error_ = std::move(error);
}

}  // namespace hadal::serve
