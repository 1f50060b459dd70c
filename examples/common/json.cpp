#include "common/json.h"

#include <fmt/format.h>

#include <unordered_set>
#include <utility>
#include <vector>

namespace hadal::examples {
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

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  // The library takes a zero byte for the end of the text.
  if (text.find('\0') != text.npos) {
    return Status(Errc::kMalformed, "text must be valid JSON, got a zero byte");
  }
  Json root;
  Builder builder(limits, root);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return Status(Errc::kMalformed, builder.error());
  }
  return root;
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
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

}  // namespace hadal::examples
