// See onig_pattern.h. The dialects differ in small and silent ways: \s of PCRE2 holds U+180E, \h is
// a hex digit in Ruby, \v is one character there, \p{Han} of PCRE2 means Script_Extensions, [a[b]]
// and
// && work on sets. So this is a list of what is known to agree, everything else is refused.
#include "onig_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "byte_level.h"

namespace hadal::model::detail {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;  // those of published tokenizers have up to 400

constexpr std::array<std::string_view, 36> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
    "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
    "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cn", "Co"};

constexpr std::array<std::string_view, 12> kScripts = {
    "Han",   "Hiragana", "Katakana", "Hangul", "Latin",    "Cyrillic",
    "Greek", "Arabic",   "Hebrew",   "Thai",   "Armenian", "Devanagari"};

// Oniguruma's word characters in a class; outside of one it has a table of its own for Latin-1,
// where superscript digits and fractions are word characters too.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kWordLatin1 = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

bool is_ascii_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  Result<std::string> run() {
    if (in_.size() > kMaxPatternBytes) {
      return Status(Errc::kUnsupported, fmt::format("{}: regex must have at most {} bytes, got {}",
                                                    where_, kMaxPatternBytes, in_.size()));
    }
    while (pos_ < in_.size()) HADAL_TRY(step());
    return std::move(out_);
  }

 private:
  [[nodiscard]] Status refuse(std::string_view what) const {
    return Status(Errc::kUnsupported,
                  fmt::format("{}: regex must use only what is implemented, got {} at byte {}",
                              where_, what, pos_));
  }
  [[nodiscard]] bool at(std::string_view s) const { return in_.substr(pos_).starts_with(s); }
  void copy(size_t count) {
    out_ += in_.substr(pos_, count);
    pos_ += count;
  }

  Status step() {
    const char c = in_[pos_];
    const bool quantifier = c == '*' || c == '+' || c == '?' || c == '{';
    if (!quantifier) after_quantifier_ = false;
    if (c != '(' && c != ')' && !is_ascii_alnum(c)) last_letter_ = 0;
    switch (c) {
      case '(': return open_group();
      case ')': return close_group();
      case '[': return char_class();
      case '\\': return escape(false);
      case '*':
      case '+':
      case '?': return quantify(1, true);
      case '{': return braces();
      case '|':
      case '^':
      case '$':
      case '.': copy(1); return {};
      default: return literal();
    }
  }

  // Inside (?i:...) both dialects fold one character to one character alike; Oniguruma also matches
  // some pairs of letters with one ligature.
  Status literal() {
    const char c = in_[pos_];
    if (case_insensitive_) {
      if (static_cast<uint8_t>(c) >= 0x80) return refuse("a non-ASCII letter inside (?i:");
      const char lower = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
      for (const std::string_view pair : {"ss", "st", "ff", "fi", "fl"}) {
        if (last_letter_ == pair[0] && lower == pair[1]) return refuse("a ligature inside (?i:");
      }
      last_letter_ = lower;
    }
    copy(std::max<size_t>(1, utf8_char_length(in_.substr(pos_))));
    return {};
  }

  Status open_group() {
    for (const std::string_view start : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (!at(start)) continue;
      groups_ += case_insensitive_ ? 'i' : '-';
      if (start == "(?i:") case_insensitive_ = true;
      copy(start.size());
      return {};
    }
    if (at("(?")) return refuse(fmt::format("'{}'", in_.substr(pos_, 4)));
    if (at("(*")) return refuse("'(*'");
    groups_ += case_insensitive_ ? 'i' : '-';
    copy(1);
    return {};
  }

  Status close_group() {
    if (groups_.empty()) return refuse("')' without '('");
    case_insensitive_ = groups_.back() == 'i';
    groups_.pop_back();
    copy(1);
    return {};
  }

  // A quantifier of `length` characters and its suffix: '?' makes it lazy in both dialects, '+'
  // possessive in both after * + ? only.
  Status quantify(size_t length, bool may_be_possessive) {
    if (after_quantifier_) return refuse("two quantifiers in a row");
    copy(length);
    if (at("+") && !may_be_possessive) return refuse("'+' after '}'");
    if (at("?") || at("+")) copy(1);
    after_quantifier_ = true;
    last_letter_ = 0;
    return {};
  }

  // {n} {n,} {n,m} {,m}; a brace that is none of these is a literal.
  Status braces() {
    size_t end = pos_ + 1;
    while (end < in_.size() && is_digit(in_[end])) ++end;
    const bool has_min = end > pos_ + 1;
    bool exact = true, has_max = false;
    if (end < in_.size() && in_[end] == ',') {
      exact = false;
      const size_t max_begin = ++end;
      while (end < in_.size() && is_digit(in_[end])) ++end;
      has_max = end > max_begin;
    }
    if (end == in_.size() || in_[end] != '}' || (!has_min && !has_max)) {
      after_quantifier_ = false;
      out_ += R"(\{)";
      ++pos_;
      return {};
    }
    const size_t length = end + 1 - pos_;
    if (exact && in_.substr(end + 1).starts_with('?')) return refuse("'{n}?'");
    if (!has_min) return refuse("'{,m}'");
    return quantify(length, false);
  }

  // A backslash and what follows, also inside a class.
  Status escape(bool in_class) {
    if (pos_ + 1 == in_.size()) return refuse("a backslash at the end");
    const char c = in_[pos_ + 1];
    if (case_insensitive_ && is_ascii_alnum(c)) return refuse("an escape inside (?i:");
    switch (c) {
      case 's':
      case 'S':
        out_ += c == 's' ? R"(\p{White_Space})" : R"(\P{White_Space})";
        pos_ += 2;
        return {};
      case 'w':
        out_ += in_class ? std::string(kWord) : fmt::format("[{}{}]", kWord, kWordLatin1);
        pos_ += 2;
        return {};
      case 'W':
        if (in_class) return refuse("'\\W' in a class");
        out_ += fmt::format("[^{}{}]", kWord, kWordLatin1);
        pos_ += 2;
        return {};
      case 'd':
        out_ += R"(\p{Nd})";
        pos_ += 2;
        return {};
      case 'D':
        out_ += R"(\P{Nd})";
        pos_ += 2;
        return {};
      case 'v':
        out_ += R"(\x{0b})";
        pos_ += 2;
        return {};
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'a':
      case 'e': copy(2); return {};
      case 'p':
      case 'P': return property();
      case 'x':
      case 'u': return code_point();
      default: break;
    }
    if (is_ascii_alnum(c)) return refuse(fmt::format("'\\{}'", c));
    // PCRE2 takes a backslash before a non-ASCII character for that character, like Oniguruma.
    copy(1 + std::max<size_t>(1, utf8_char_length(in_.substr(pos_ + 1))));
    return {};
  }

  // \p{Name} \P{Name} \p{^Name}
  Status property() {
    const size_t end = in_.find('}', pos_);
    if (end == std::string_view::npos || in_.substr(pos_ + 2, 1) != "{") {
      return refuse("'\\p' without braces");
    }
    std::string_view name = in_.substr(pos_ + 3, end - pos_ - 3);
    bool negated = in_[pos_ + 1] == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const bool category =
        std::find(kCategories.begin(), kCategories.end(), name) != kCategories.end();
    const bool script = std::find(kScripts.begin(), kScripts.end(), name) != kScripts.end();
    if (!category && !script) return refuse(fmt::format("'\\p{{{}}}'", name));
    out_ += fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', script ? "sc:" : "", name);
    pos_ = end + 1;
    return {};
  }

  // \xHH (ASCII only: above it is a raw byte to Oniguruma), \x{H...}, \uHHHH.
  Status code_point() {
    const bool braced = in_[pos_ + 1] == 'x' && in_.substr(pos_ + 2, 1) == "{";
    const size_t want = braced ? 8 : in_[pos_ + 1] == 'x' ? 2 : 4;
    size_t p = pos_ + (braced ? 3 : 2), digits = 0;
    uint64_t value = 0;
    for (; digits < want && p < in_.size() && hex_digit(in_[p]) >= 0; ++p, ++digits) {
      value = value * 16 + static_cast<uint64_t>(hex_digit(in_[p]));
    }
    if (braced ? (digits == 0 || in_.substr(p, 1) != "}") : digits != want) {
      return refuse("an incomplete character code");
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000) || (want == 2 && value > 0x7F)) {
      return refuse(fmt::format("character code {:#x}", value));
    }
    out_ += fmt::format("\\x{{{:x}}}", value);
    pos_ = p + (braced ? 1 : 0);
    return {};
  }

  Status char_class() {
    if (case_insensitive_) return ascii_letter_class();
    copy(1);
    if (at("^")) copy(1);
    if (at("]")) return refuse("an empty character class");
    while (pos_ < in_.size() && in_[pos_] != ']') {
      if (at("[")) return refuse("'[' in a class");
      if (at("&&")) return refuse("'&&' in a class");
      if (at("\\")) {
        HADAL_TRY(escape(true));
      } else {
        copy(std::max<size_t>(1, utf8_char_length(in_.substr(pos_))));
      }
    }
    if (pos_ == in_.size()) return refuse("a class without ']'");
    copy(1);
    return {};
  }

  // [sdmt] inside (?i:...), as in (?i:[sdmt]|ll|ve|re).
  Status ascii_letter_class() {
    const size_t end = in_.find(']', pos_);
    if (end == std::string_view::npos || end == pos_ + 1) return refuse("a class without ']'");
    const std::string_view inside = in_.substr(pos_ + 1, end - pos_ - 1);
    if (!std::all_of(inside.begin(), inside.end(), is_ascii_alnum)) {
      return refuse("a class of more than letters inside (?i:");
    }
    copy(end + 1 - pos_);
    return {};
  }

  std::string_view in_;
  const std::string& where_;
  size_t pos_ = 0;
  std::string out_;
  std::string groups_;  // per open group, whether case was ignored outside it
  bool case_insensitive_ = false;
  bool after_quantifier_ = false;
  char last_letter_ = 0;  // inside (?i:...), the literal just before
};

}  // namespace

Result<std::string> translate_onig(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace hadal::model::detail
