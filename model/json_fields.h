// Checked access to the fields of an untrusted JSON object: every read names the field, its rule
// and the value that was found. Message grammar: "NAME: field rule, got value".
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/status.h"

namespace hadal::model {

using Json = nlohmann::json;

// Nesting beyond this is refused before it is built; the deepest published file has 4 levels.
inline constexpr size_t kMaxJsonDepth = 64;

// The message for text that is not JSON, at a position counted from 1.
[[nodiscard]] std::string not_json(const std::string& name, size_t position);
// Refuses a zero byte: the library takes it for the end and would accept anything behind it.
[[nodiscard]] Status check_no_zero_byte(std::string_view text, const std::string& name);

// Parses `text`; refuses broken JSON, deep nesting and a key that occurs twice in one object.
[[nodiscard]] Result<Json> parse_json(std::string_view text, const std::string& name);

// A name or string of a file as it may appear in a message: quoted, escaped, at most ~80 bytes.
[[nodiscard]] std::string in_quotes(std::string_view text);

// Inclusive bounds.
template <class T>
struct Range {
  T least;
  T most;
};

// One object of a document. `prefix` (e.g. "rope_scaling.") starts the field names in messages.
// The object and the name must outlive the reader.
class JsonFields {
 public:
  // Errors: kMalformed when `value` is not an object.
  [[nodiscard]] static Result<JsonFields> of(const Json& value, const std::string& name,
                                             std::string prefix = "");

  // nullptr when the field is absent; find_set also takes null for absent.
  [[nodiscard]] const Json* find(std::string_view key) const;
  [[nodiscard]] const Json* find_set(std::string_view key) const;

  // The value must be present, of the type and inside the range, otherwise kMalformed.
  [[nodiscard]] Status require(std::string_view key, Range<uint32_t> range, uint32_t& out) const;
  [[nodiscard]] Status require(std::string_view key, Range<double> range, double& out) const;
  [[nodiscard]] Status require(std::string_view key, std::string& out) const;

  // As require, but an absent field leaves `out` as it is. null counts as absent for numbers and
  // strings; for a bool it is refused, because Python's None would mean false.
  [[nodiscard]] Status read(std::string_view key, Range<uint32_t> range, uint32_t& out) const;
  [[nodiscard]] Status read(std::string_view key, Range<double> range, double& out) const;
  [[nodiscard]] Status read(std::string_view key, std::string& out) const;
  [[nodiscard]] Status read(std::string_view key, bool& out) const;
  // A number or a list of at most kMaxListed numbers. null counts as absent.
  [[nodiscard]] Status read(std::string_view key, Range<uint32_t> range,
                            std::vector<uint32_t>& out) const;
  static constexpr size_t kMaxListed = 256;

  // An object inside this one; the field must be set.
  [[nodiscard]] Result<JsonFields> object(std::string_view key) const;

  // "NAME: PREFIXkey rule, got value", for rules beyond type and range.
  [[nodiscard]] Status error(Errc code, std::string_view key, std::string_view rule,
                             std::string_view got) const;
  [[nodiscard]] Status refuse(Errc code, std::string_view key, std::string_view rule,
                              const Json& value) const;

 private:
  JsonFields(const Json& object, const std::string& name, std::string prefix)
      : object_(&object), name_(&name), prefix_(std::move(prefix)) {}
  [[nodiscard]] Status absent(std::string_view key) const;

  const Json* object_;
  const std::string* name_;
  std::string prefix_;
};

}  // namespace hadal::model
