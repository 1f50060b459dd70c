// JSON of strangers: what RFC 8259 allows and nothing else (no NaN, no comment, no text that is not
// UTF-8), bounded in depth and in number of values, each key once. Objects keep the order of
// their members: templates and schemas see it.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "hadal/status.h"

namespace hadal::examples {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t depth = 64;
  size_t values = 1'000'000;  // of which each takes some 50 bytes
};

// Errors: kMalformed saying what is wrong and at which byte, without a field's name in front.
[[nodiscard]] Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// On one line. Text that is not UTF-8 becomes U+FFFD.
[[nodiscard]] std::string dump(const Json& value);
// How a value may appear in a message: at most some 60 bytes, whole characters.
[[nodiscard]] std::string excerpt(const Json& value);

}  // namespace hadal::examples
