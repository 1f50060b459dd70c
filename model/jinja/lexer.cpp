#include "jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "jinja/text.h"
#include "jinja/value.h"

namespace hadal::jinja {
namespace {

using Kind = Token::Kind;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_char(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_space(char c) {
  return kSpace.find(c) != std::string_view::npos;
}

// Line ends as \n, one of which is dropped at the end.
std::string normalised(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalised(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    throw Error(fmt::format("line {}: {}", line_, why));
  }
  [[nodiscard]] std::string_view rest() const { return std::string_view(source_).substr(at_); }
  [[nodiscard]] bool next_is(std::string_view what) const { return rest().starts_with(what); }
  void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void skip(size_t count) {
    line_ += uint32_t(std::count(source_.begin() + ptrdiff_t(at_),
                                 source_.begin() + ptrdiff_t(at_ + count), '\n'));
    at_ += count;
  }
  void skip_space() {
    while (at_ < source_.size() && is_space(source_[at_])) skip(1);
  }

  // Text up to the next tag, and what the tag's begin strips of it.
  void text() {
    const size_t begin = at_;
    size_t tag = begin;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 == source_.size()) tag = source_.size();
      if (tag == source_.size() ||
          std::string_view("{%#").find(source_[tag + 1]) != std::string::npos)
        break;
      ++tag;
    }
    std::string_view before = std::string_view(source_).substr(begin, tag - begin);
    if (tag == source_.size()) {
      if (!before.empty()) add(Kind::kText, std::string(before));
      return skip(tag - begin);
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (sign == '-') {
      before = stripped(before, kSpace, false, true);
    } else if (sign != '+' && kind != '{') {
      const size_t line_begin = before.rfind('\n') + 1;
      const bool from_line_begin = line_begin > 0 || begin == 0 || source_[begin - 1] == '\n';
      if (from_line_begin && stripped(before.substr(line_begin)).empty()) {
        before = before.substr(0, line_begin);
      }
    }
    if (!before.empty()) add(Kind::kText, std::string(before));
    skip(tag - begin + (sign == '-' || sign == '+' ? 3 : 2));
    if (kind == '#') return comment();
    if (kind == '%' && raw()) return;
    add(kind == '%' ? Kind::kBlock : Kind::kOutput, "");
    inside(kind == '%' ? "%}" : "}}");
  }

  // Behind a tag's end: `-` strips all white space, else a block's first line end goes.
  void behind(bool minus, bool plus, bool block) {
    if (minus) return skip_space();
    if (block && !plus && next_is("\n")) skip(1);
  }
  [[nodiscard]] bool end_tag(std::string_view end, bool block) {
    const bool sign = next_is("-") || (next_is("+") && block);
    if (!rest().substr(sign).starts_with(end)) return false;
    const bool minus = next_is("-"), plus = next_is("+");
    skip(end.size() + sign);
    behind(minus, plus, block);
    return true;
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("a comment does not end");
    const char sign = end > at_ ? source_[end - 1] : ' ';
    skip(end + 2 - at_);
    behind(sign == '-', sign == '+', true);
  }

  // {% raw %} ... {% endraw %}, whose begin has been read; false: another block.
  [[nodiscard]] bool raw() {
    const size_t begin = at_;
    const uint32_t line = line_;
    skip_space();
    if (!next_is("raw")) return at_ = begin, line_ = line, false;
    skip(3);
    skip_space();
    if (!end_tag("%}", true)) return at_ = begin, line_ = line, false;
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos;
         tag = source_.find("{%", tag + 2)) {
      const size_t from = at_;
      size_t name = tag + 2;
      const bool minus = source_[name] == '-';
      if (minus || source_[name] == '+') ++name;
      while (name < source_.size() && is_space(source_[name])) ++name;
      if (source_.compare(name, 6, "endraw") != 0) continue;
      std::string_view text = std::string_view(source_).substr(from, tag - from);
      if (minus) text = stripped(text, kSpace, false, true);
      if (!text.empty()) add(Kind::kText, std::string(text));
      skip(name + 6 - at_);
      skip_space();
      if (!end_tag("%}", true)) fail("endraw takes nothing");
      return true;
    }
    fail("raw does not end");
  }

  void inside(std::string_view end) {
    std::string open;  // brackets
    while (true) {
      skip_space();
      if (at_ == source_.size()) fail("a tag does not end");
      if (open.empty() && end_tag(end, end[0] == '%')) return add(Kind::kEndTag, "");
      const char c = source_[at_];
      if (c == '"' || c == '\'') {
        string(c);
      } else if (is_digit(c)) {
        number();
      } else if (is_name_char(c)) {
        size_t length = 1;
        while (at_ + length < source_.size() && is_name_char(source_[at_ + length])) ++length;
        add(Kind::kName, source_.substr(at_, length));
        skip(length);
      } else {
        operator_(open);
      }
    }
  }

  void operator_(std::string& open) {
    for (std::string_view op : {"==", "!=", ">=", "<=", "//", "**"}) {
      if (!next_is(op)) continue;
      add(Kind::kOperator, std::string(op));
      return skip(2);
    }
    const char c = source_[at_];
    if (std::string_view("+-*/%~[](){}<>=.:|,").find(c) == std::string_view::npos) {
      fail(fmt::format("unexpected character '{}'", c));
    }
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      const char begin = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open.empty() || open.back() != begin) fail(fmt::format("unexpected '{}'", c));
      open.pop_back();
    }
    add(Kind::kOperator, std::string(1, c));
    skip(1);
  }

  void number() {
    const auto digits = [this](size_t from) {
      while (from < source_.size() && (is_digit(source_[from]) || source_[from] == '_')) ++from;
      return from;
    };
    size_t end = digits(at_);
    Kind kind = Kind::kInteger;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      end = digits(end + 1), kind = Kind::kFloat;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '-' || source_[exponent] == '+')) {
        ++exponent;
      }
      if (exponent < source_.size() && is_digit(source_[exponent])) {
        end = digits(exponent), kind = Kind::kFloat;
      }
    }
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    add(kind, std::move(text));
    skip(end - at_);
  }

  void string(char quote) {
    const uint32_t line = line_;
    std::string text;
    skip(1);
    while (true) {
      if (at_ == source_.size()) fail("a string does not end");
      const char c = source_[at_];
      skip(1);
      if (c == quote) break;
      if (c == '\\') {
        escape(text);
      } else {
        text += c;
      }
    }
    tokens_.push_back({Kind::kString, std::move(text), line});
  }

  // What follows a backslash, as in Python's strings.
  void escape(std::string& text) {
    if (at_ == source_.size()) fail("a string does not end");
    const char c = source_[at_];
    skip(1);
    if (c == '\n') return;
    constexpr std::string_view from = "ntrbfav\\'\"", to = "\n\t\r\b\f\a\v\\'\"";
    if (const size_t known = from.find(c); known != std::string_view::npos) {
      text += to[known];
      return;
    }
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length == 0) {
      text += '\\', text += c;
      return;
    }
    uint32_t code = 0;
    const char* begin = source_.data() + at_;
    const char* limit = source_.data() + std::min(source_.size(), at_ + length);
    const auto [end, error] = std::from_chars(begin, limit, code, 16);
    if (error != std::errc() || end != begin + length || code > 0x10ffff ||
        (code >= 0xd800 && code < 0xe000)) {
      fail(fmt::format("\\{} needs the {} digits of a character", c, length));
    }
    append_utf8(text, code);
    skip(length);
  }

  std::string source_;
  size_t at_ = 0;
  uint32_t line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace hadal::jinja
