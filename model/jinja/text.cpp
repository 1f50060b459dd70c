#include "jinja/text.h"

#include <algorithm>

namespace hadal::jinja {
namespace {

bool is_continuation(char c) {
  return (uint8_t(c) & 0xc0) == 0x80;
}
bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}
char to_upper(char c) {
  return is_lower(c) ? char(c - 32) : c;
}
char to_lower(char c) {
  return is_upper(c) ? char(c + 32) : c;
}

}  // namespace

size_t character_count(std::string_view text) {
  return size_t(
      std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin + 1;
    while (end < text.size() && is_continuation(text[end])) ++end;
    characters.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return characters;
}

void append_utf8(std::string& text, uint32_t c) {
  if (c < 0x80) {
    text += char(c);
  } else if (c < 0x800) {
    text += char(0xc0 | c >> 6), text += char(0x80 | (c & 63));
  } else if (c < 0x10000) {
    text += char(0xe0 | c >> 12), text += char(0x80 | (c >> 6 & 63)), text += char(0x80 | (c & 63));
  } else {
    text += char(0xf0 | c >> 18), text += char(0x80 | (c >> 12 & 63));
    text += char(0x80 | (c >> 6 & 63)), text += char(0x80 | (c & 63));
  }
}

std::string_view stripped(std::string_view text, std::string_view characters, bool left,
                          bool right) {
  // Sets of characters beyond ASCII would be compared byte by byte; whole characters it must be.
  const std::vector<std::string_view> set = characters_of(characters);
  const auto in_set = [&](std::string_view c) {
    return std::find(set.begin(), set.end(), c) != set.end();
  };
  while (left && !text.empty()) {
    size_t end = 1;
    while (end < text.size() && is_continuation(text[end])) ++end;
    if (!in_set(text.substr(0, end))) break;
    text.remove_prefix(end);
  }
  while (right && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && is_continuation(text[begin])) --begin;
    if (!in_set(text.substr(begin))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::vector<std::string> split(std::string_view text, std::string_view separator, int64_t most,
                               bool from_right) {
  std::vector<std::string> parts;
  while (most < 0 || int64_t(parts.size()) < most) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    const size_t behind = at + separator.size();
    parts.emplace_back(from_right ? text.substr(behind) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(behind);
  }
  parts.emplace_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> split_space(std::string_view text, int64_t most) {
  std::vector<std::string> parts;
  text = stripped(text, kSpace, true, false);
  while (!text.empty()) {
    const size_t end = text.find_first_of(kSpace);
    if (end == std::string_view::npos || (most >= 0 && int64_t(parts.size()) >= most)) {
      parts.emplace_back(text);
      break;
    }
    parts.emplace_back(text.substr(0, end));
    text = stripped(text.substr(end), kSpace, true, false);
  }
  return parts;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to,
                     int64_t most) {
  std::string result;
  if (from.empty()) {  // between all characters, as Python does
    int64_t count = 0;
    const auto insert = [&] {
      if (most < 0 || count++ < most) result += to;
    };
    insert();
    for (std::string_view c : characters_of(text)) {
      result += c;
      insert();
    }
    return result;
  }
  const std::vector<std::string> parts = split(text, from, most, false);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i) result += to;
    result += parts[i];
  }
  return result;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), to_upper);
  return text;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), to_lower);
  return text;
}

std::string capitalized(std::string text) {
  text = lower(std::move(text));
  if (!text.empty()) text[0] = to_upper(text[0]);
  return text;
}

std::string titled(std::string text) {
  bool inside = false;
  for (char& c : text) {
    c = inside ? to_lower(c) : to_upper(c);
    inside = is_lower(c) || is_upper(c);
  }
  return text;
}

std::string indented(std::string_view text, std::string_view indent, bool first, bool blank) {
  std::string result;
  bool is_first = true;
  for (const std::string& line : split(text, "\n", -1, false)) {
    if (!is_first) result += '\n';
    if ((is_first ? first : true) && (blank || is_first || !line.empty())) result += indent;
    result += line;
    is_first = false;
  }
  return result;
}

}  // namespace hadal::jinja
