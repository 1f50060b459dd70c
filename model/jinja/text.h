// Strings as Python has them: counted and cut in characters, stored as UTF-8. Private.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal::jinja {

[[nodiscard]] size_t character_count(std::string_view text);
[[nodiscard]] std::vector<std::string_view> characters_of(std::string_view text);
// Appends a code point as UTF-8.
void append_utf8(std::string& text, uint32_t code_point);

inline constexpr std::string_view kSpace = " \t\n\r\f\v";
// str.strip(characters) of the ends asked for; the default is ASCII white space.
[[nodiscard]] std::string_view stripped(std::string_view text, std::string_view characters = kSpace,
                                        bool left = true, bool right = true);
// str.split(separator, most) and str.split(); `most` < 0: all. `from_right`: rsplit.
[[nodiscard]] std::vector<std::string> split(std::string_view text, std::string_view separator,
                                             int64_t most, bool from_right);
[[nodiscard]] std::vector<std::string> split_space(std::string_view text, int64_t most);
// str.replace(from, to, most).
[[nodiscard]] std::string replaced(std::string_view text, std::string_view from,
                                   std::string_view to, int64_t most = -1);
// ASCII letters only: names of roles and the like, not prose.
[[nodiscard]] std::string upper(std::string text);
[[nodiscard]] std::string lower(std::string text);
[[nodiscard]] std::string capitalized(std::string text);
[[nodiscard]] std::string titled(std::string text);
// The filter indent: every line but the first (or also it) behind `width` spaces.
[[nodiscard]] std::string indented(std::string_view text, std::string_view indent, bool first,
                                   bool blank);

}  // namespace hadal::jinja
