// The formats of strings as regular expressions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hadal::runtime::grammar {

// None for a format that is not understood.
[[nodiscard]] std::optional<std::string> format_pattern(std::string_view format);

}  // namespace hadal::runtime::grammar
