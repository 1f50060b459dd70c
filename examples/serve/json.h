// JSON of clients, and typed reads of its fields.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/json.h"
#include "serve/api_error.h"

namespace hadal::serve {

using examples::dump, examples::excerpt;
using examples::Json, examples::JsonLimits;

// Errors: 400 with code "invalid_json" and what is wrong at which byte.
[[nodiscard]] Outcome<Json> parse_body(std::string_view text, const JsonLimits& limits = {});

// `text` as a JSON string with its quotes; appends. Must be UTF-8.
void append_quoted(std::string& out, std::string_view text);

// Typed reads of an object's fields. The first wrong one is kept and later reads do nothing, so
// that a list of reads needs one check at its end. null counts as absent, as OpenAI has it.
class Fields {
 public:
  // `prefix` ("stream_options.") starts the names in messages. The object must outlive the reader.
  explicit Fields(const Json& object, std::string prefix = "");

  // nullptr when absent.
  [[nodiscard]] const Json* find(const char* key) const;
  void boolean(const char* key, bool& out);
  void string(const char* key, std::string& out);
  // A whole number (1.0 is none); inclusive bounds.
  void integer(const char* key, int64_t least, int64_t most, int64_t& out);
  void integer(const char* key, int64_t least, int64_t most, uint32_t& out);
  void number(const char* key, double least, double most, float& out);

  // "PREFIXkey: rule, got value"; only the first counts.
  void refuse(const std::string& key, const std::string& rule, const Json& got);
  void fail(ApiError error);
  [[nodiscard]] bool ok() const { return !failed_; }
  [[nodiscard]] const ApiError& error() const { return error_; }
  [[nodiscard]] std::string name(const std::string& key) const { return prefix_ + key; }

 private:
  const Json* object_;
  std::string prefix_;
  bool failed_ = false;
  ApiError error_;
};

}  // namespace hadal::serve
