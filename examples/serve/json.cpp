#include "serve/json.h"

#include <fmt/format.h>

#include <utility>

namespace hadal::serve {

Outcome<Json> parse_body(std::string_view text, const JsonLimits& limits) {
  Result<Json> json = examples::parse_json(text, limits);
  if (json.ok()) return std::move(*json);
  return ApiError{400, "body: " + json.status().message(), "", "invalid_json", 0};
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
