#include "json_fields.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace hadal::model {
namespace {

// Builds the document as nlohmann::json does, but stops at a depth and at a repeated key, which
// the library's own builder would follow and overwrite.
class DocumentBuilder final : public nlohmann::json_sax<Json> {
 public:
  DocumentBuilder(const std::string& name, Json& root) : name_(name), root_(root) {}

  [[nodiscard]] const std::string& error() const { return error_; }

  bool null() override { return put(nullptr) != nullptr; }
  bool boolean(bool value) override { return put(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return put(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return put(value) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override {
    return put(value) != nullptr;
  }
  bool string(string_t& value) override { return put(std::move(value)) != nullptr; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& key) override {
    if (open_.back()->contains(key)) {
      return fail(fmt::format("{}: every key must occur once in its object, got {} twice", name_,
                              in_quotes(key)));
    }
    slot_ = &(*open_.back())[key];
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return fail(not_json(name_, position));
  }

 private:
  bool fail(std::string message) {
    error_ = std::move(message);
    return false;
  }
  Json* put(Json value) {
    Json* place = &root_;
    if (!open_.empty()) {
      if (open_.back()->is_array()) {
        open_.back()->push_back(nullptr);
        place = &open_.back()->back();
      } else {
        place = slot_;
      }
    }
    *place = std::move(value);
    return place;
  }
  bool open(Json empty) {
    if (open_.size() >= kMaxJsonDepth) {
      return fail(
          fmt::format("{}: nesting must be at most {} levels, got more", name_, kMaxJsonDepth));
    }
    open_.push_back(put(std::move(empty)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& name_;
  Json& root_;
  std::vector<Json*> open_;  // the containers around the current place, outermost first
  Json* slot_ = nullptr;     // where the value of the last key goes
  std::string error_;
};

std::string describe(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array() && value.size() > 8) return fmt::format("a list of {}", value.size());
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

}  // namespace

std::string not_json(const std::string& name, size_t position) {
  // Not the library's text: it repeats the last token, which may be the whole file.
  return fmt::format("{}: text must be valid JSON, got an error at byte {}", name, position);
}

Status check_no_zero_byte(std::string_view text, const std::string& name) {
  const size_t at = text.find('\0');
  if (at == std::string_view::npos) return {};
  return {Errc::kMalformed, not_json(name, at + 1)};
}

Result<Json> parse_json(std::string_view text, const std::string& name) {
  HADAL_TRY(check_no_zero_byte(text, name));
  Json document;
  DocumentBuilder builder(name, document);
  if (!Json::sax_parse(text, &builder)) return Status(Errc::kMalformed, builder.error());
  return document;
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kMost = 76;
  const bool whole = text.size() <= kMost;
  // Replacement covers both bytes that are not UTF-8 and a character cut in two.
  std::string shown =
      Json(std::string(text.substr(0, kMost))).dump(-1, ' ', true, Json::error_handler_t::replace);
  return whole ? shown : shown + "...";
}

Result<JsonFields> JsonFields::of(const Json& value, const std::string& name, std::string prefix) {
  if (!value.is_object()) {
    const std::string what =
        prefix.empty() ? "text" : prefix.substr(0, prefix.size() - 1);  // without the last dot
    return Status(Errc::kMalformed,
                  fmt::format("{}: {} must be an object, got {}", name, what, describe(value)));
  }
  return JsonFields(value, name, std::move(prefix));
}

const Json* JsonFields::find(std::string_view key) const {
  const auto it = object_->find(key);
  return it == object_->end() ? nullptr : &*it;
}

const Json* JsonFields::find_set(std::string_view key) const {
  const Json* value = find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

Status JsonFields::require(std::string_view key, Range<uint32_t> range, uint32_t& out) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key);
  if (!value->is_number_unsigned() || value->get<uint64_t>() < range.least ||
      value->get<uint64_t>() > range.most) {
    return refuse(Errc::kMalformed, key,
                  fmt::format("must be a whole number between {} and {}", range.least, range.most),
                  *value);
  }
  out = value->get<uint32_t>();
  return {};
}

Status JsonFields::require(std::string_view key, Range<double> range, double& out) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key);
  const double number = value->is_number() ? value->get<double>() : 0.0;
  // Written so that a NaN would be refused too.
  if (!value->is_number() || !(number >= range.least && number <= range.most)) {
    return refuse(Errc::kMalformed, key,
                  fmt::format("must be a number between {:g} and {:g}", range.least, range.most),
                  *value);
  }
  out = number;
  return {};
}

Status JsonFields::require(std::string_view key, std::string& out) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key);
  if (!value->is_string()) return refuse(Errc::kMalformed, key, "must be a string", *value);
  out = value->get_ref<const std::string&>();
  return {};
}

Status JsonFields::read(std::string_view key, Range<uint32_t> range, uint32_t& out) const {
  return find_set(key) == nullptr ? Status() : require(key, range, out);
}

Status JsonFields::read(std::string_view key, Range<double> range, double& out) const {
  return find_set(key) == nullptr ? Status() : require(key, range, out);
}

Status JsonFields::read(std::string_view key, std::string& out) const {
  return find_set(key) == nullptr ? Status() : require(key, out);
}

Status JsonFields::read(std::string_view key, bool& out) const {
  const Json* value = find(key);
  if (value == nullptr) return {};
  if (!value->is_boolean()) return refuse(Errc::kMalformed, key, "must be true or false", *value);
  out = value->get<bool>();
  return {};
}

Status JsonFields::read(std::string_view key, Range<uint32_t> range,
                        std::vector<uint32_t>& out) const {
  const Json* value = find_set(key);
  if (value == nullptr) return {};
  if (!value->is_array()) return require(key, range, out.emplace_back());
  if (value->size() > kMaxListed) {
    return refuse(Errc::kMalformed, key, fmt::format("must be at most {} ids", kMaxListed), *value);
  }
  for (const Json& id : *value) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() < range.least ||
        id.get<uint64_t>() > range.most) {
      return refuse(
          Errc::kMalformed, key,
          fmt::format("must hold whole numbers between {} and {}", range.least, range.most), id);
    }
    out.push_back(id.get<uint32_t>());
  }
  return {};
}

Result<JsonFields> JsonFields::object(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key);
  return of(*value, *name_, fmt::format("{}{}.", prefix_, key));
}

Status JsonFields::error(Errc code, std::string_view key, std::string_view rule,
                         std::string_view got) const {
  return {code, fmt::format("{}: {}{} {}, got {}", *name_, prefix_, key, rule, got)};
}

Status JsonFields::refuse(Errc code, std::string_view key, std::string_view rule,
                          const Json& value) const {
  return error(code, key, rule, describe(value));
}

Status JsonFields::absent(std::string_view key) const {
  return error(Errc::kMalformed, key, "must be present", "nothing");
}

}  // namespace hadal::model
