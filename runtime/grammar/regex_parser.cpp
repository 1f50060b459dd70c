// A regular expression's text to its automaton, in one pass over a tree.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "regex.h"
#include "regex_nfa.h"

namespace hadal::runtime::grammar {
namespace {

constexpr uint32_t kLastCodePoint = 0x10ffff;
constexpr uint32_t kUnlimited = UINT32_MAX;

CodeSet normalised(CodeSet set) {
  std::sort(set.begin(), set.end(), [](CodeRange a, CodeRange b) { return a.low < b.low; });
  CodeSet out;
  for (const CodeRange& range : set) {
    if (!out.empty() && range.low <= out.back().high + 1) {
      out.back().high = std::max(out.back().high, range.high);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

CodeSet complement(const CodeSet& set) {
  CodeSet out;
  uint32_t next = 0;
  for (const CodeRange& range : normalised(set)) {
    if (range.low > next) out.push_back({next, range.low - 1});
    next = range.high + 1;
  }
  if (next <= kLastCodePoint) out.push_back({next, kLastCodePoint});
  return out;
}

// Of constants, which are no CodeSets so that the library has no state of its own.
template <size_t kCount>
CodeSet set_of(const CodeRange (&ranges)[kCount]) {
  return CodeSet(std::begin(ranges), std::end(ranges));
}

// ECMA-262: WhiteSpace and LineTerminator.
constexpr CodeRange kSpace[] = {
    {0x09, 0x0d},     {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
    {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
constexpr CodeRange kDigit[] = {{'0', '9'}};
constexpr CodeRange kWord[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
constexpr CodeRange kLineEnds[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

struct Tree {
  enum class Kind : uint8_t { kSet, kBegin, kEnd, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;
  CodeSet set;
  uint32_t least = 0, most = 0;
  std::vector<Tree> parts;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Tree> run() {
    HADAL_ASSIGN(Tree tree, choice(0));
    if (at_ < text_.size()) return bad("parentheses must match, got a lone )");
    return tree;
  }

 private:
  [[nodiscard]] Status bad(std::string_view what) const {
    return {Errc::kInvalidArgument, fmt::format("pattern: {} at byte {}", what, at_)};
  }
  [[nodiscard]] Status unsupported(std::string_view what) const {
    return {Errc::kUnsupported, fmt::format("pattern: {} at byte {} is not supported", what, at_)};
  }
  [[nodiscard]] bool more() const { return at_ < text_.size(); }
  [[nodiscard]] bool looking_at(std::string_view what) const {
    return text_.substr(at_).starts_with(what);
  }
  bool take(std::string_view what) {
    if (!looking_at(what)) return false;
    at_ += what.size();
    return true;
  }

  Result<Tree> choice(size_t depth) {
    if (depth > kMaxRegexNesting) {
      return Status(Errc::kUnsupported, fmt::format("pattern: groups must be at most {} deep, got "
                                                    "more",
                                                    kMaxRegexNesting));
    }
    Tree tree;
    tree.kind = Tree::Kind::kChoice;
    do {
      HADAL_ASSIGN(Tree part, sequence(depth));
      tree.parts.push_back(std::move(part));
    } while (take("|"));
    return tree;
  }

  Result<Tree> sequence(size_t depth) {
    Tree tree;
    while (more() && text_[at_] != '|' && text_[at_] != ')') {
      HADAL_ASSIGN(Tree part, atom(depth));
      HADAL_ASSIGN(part, repeated(std::move(part)));
      tree.parts.push_back(std::move(part));
    }
    return tree;
  }

  Result<Tree> atom(size_t depth) {
    Tree tree;
    const char c = text_[at_];
    if (c == '(') return group(depth);
    if (c == '*' || c == '+' || c == '?' || c == '{' || c == '}') {
      return bad(fmt::format("a {} must be escaped or follow what it repeats, got it", c));
    }
    if (take("^")) {
      tree.kind = Tree::Kind::kBegin;
    } else if (take("$")) {
      tree.kind = Tree::Kind::kEnd;
    } else {
      tree.kind = Tree::Kind::kSet;
      if (take(".")) {
        tree.set = complement(set_of(kLineEnds));
      } else if (take("[")) {
        HADAL_ASSIGN(tree.set, character_class());
      } else {
        HADAL_ASSIGN(tree.set, character(false));
      }
    }
    return tree;
  }

  Result<Tree> group(size_t depth) {
    take("(");
    for (const std::string_view look : {"?=", "?!", "?<=", "?<!"}) {
      if (looking_at(look)) return unsupported("look-around");
    }
    if (take("?<")) {
      const size_t end = text_.find('>', at_);
      if (end == std::string_view::npos) return bad("a group's name must end with >");
      at_ = end + 1;
    } else if (!take("?:") && looking_at("?")) {
      return unsupported("a group of this kind");
    }
    HADAL_ASSIGN(Tree tree, choice(depth + 1));
    if (!take(")")) return bad("parentheses must match, got no )");
    return tree;
  }

  Result<Tree> repeated(Tree part) {
    uint32_t least = 0, most = kUnlimited;
    if (take("*")) {
    } else if (take("+")) {
      least = 1;
    } else if (take("?")) {
      most = 1;
    } else if (take("{")) {
      HADAL_TRY(counts(least, most));
    } else {
      return part;
    }
    take("?");  // lazy: the same strings
    if (more() && (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?')) {
      return bad("a repetition must not be repeated, got one");
    }
    Tree tree;
    tree.kind = Tree::Kind::kRepeat, tree.least = least, tree.most = most;
    tree.parts.push_back(std::move(part));
    return tree;
  }

  // Behind the brace.
  Status counts(uint32_t& least, uint32_t& most) {
    const auto number = [&]() -> std::optional<uint32_t> {
      uint64_t value = 0;
      const size_t begin = at_;
      for (; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
        value = std::min<uint64_t>(value * 10 + uint64_t(text_[at_] - '0'), kUnlimited - 1);
      }
      if (at_ == begin) return std::nullopt;
      return uint32_t(value);
    };
    const auto first = number();
    if (!first) return bad("braces must hold counts, got none");
    least = most = *first;
    if (take(",")) most = number().value_or(kUnlimited);
    if (!take("}")) return bad("braces must end with }, got none");
    return least <= most ? Status() : bad("counts must ascend, got others");
  }

  // Behind the bracket.
  Result<CodeSet> character_class() {
    const bool negated = take("^");
    CodeSet set;
    while (!take("]")) {
      if (!more()) return bad("brackets must match, got no ]");
      HADAL_ASSIGN(CodeSet part, character(true));
      const bool single = part.size() == 1 && part[0].low == part[0].high;
      if (looking_at("-") && !looking_at("-]")) {
        ++at_;
        if (!more()) return bad("brackets must match, got no ]");
        HADAL_ASSIGN(const CodeSet last, character(true));
        if (!single || last.size() != 1 || last[0].low != last[0].high) {
          return bad("a range must go from character to character, got a class");
        }
        if (last[0].low < part[0].low) return bad("a range must ascend, got another");
        part[0].high = last[0].low;
      }
      set.insert(set.end(), part.begin(), part.end());
    }
    return negated ? complement(set) : normalised(std::move(set));
  }

  // One character or escape.
  Result<CodeSet> character(bool in_class) {
    if (take("\\")) return escape(in_class);
    const uint8_t lead = uint8_t(text_[at_++]);
    uint32_t c = lead;
    if (lead >= 0xc0) {  // the schema's text is UTF-8
      const int more_bytes = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
      c = lead & (0x3f >> more_bytes);
      for (int i = 0; i < more_bytes; ++i) c = c << 6 | (uint8_t(text_[at_++]) & 0x3f);
    }
    return CodeSet{{c, c}};
  }

  Result<CodeSet> escape(bool in_class) {
    if (!more()) return bad("an escape must have a character, got none");
    const char c = text_[at_++];
    const auto one = [](uint32_t code) { return CodeSet{{code, code}}; };
    switch (c) {
      case 'd': return set_of(kDigit);
      case 'D': return complement(set_of(kDigit));
      case 'w': return set_of(kWord);
      case 'W': return complement(set_of(kWord));
      case 's': return set_of(kSpace);
      case 'S': return complement(set_of(kSpace));
      case 't': return one('\t');
      case 'n': return one('\n');
      case 'r': return one('\r');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case 'x': return hex(2);
      case 'u': return take("{") ? hex_in_braces() : code_unit();
      case '0':
        if (!more() || text_[at_] < '0' || text_[at_] > '9') return one(0);
        return unsupported("an octal escape");
      case 'c':
        if (more() && ((text_[at_] | 32) >= 'a' && (text_[at_] | 32) <= 'z')) {
          return one(uint32_t(text_[at_++]) & 31);
        }
        return bad("\\c must have a letter, got none");
      case 'b':
        if (in_class) return one('\b');
        [[fallthrough]];
      default: break;
    }
    const bool word = c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    if (uint8_t(c) >= 0x80) return bad("an escape must be of ASCII, got another character");
    if (word) return unsupported(fmt::format("\\{}", c));
    return one(uint32_t(c));
  }

  std::optional<uint32_t> digit() {
    if (!more()) return std::nullopt;
    const char c = text_[at_], lower = char(c | 32);
    if (c >= '0' && c <= '9') return ++at_, uint32_t(c - '0');
    if (lower >= 'a' && lower <= 'f') return ++at_, uint32_t(lower - 'a' + 10);
    return std::nullopt;
  }
  Result<CodeSet> hex(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const auto d = digit();
      if (!d) return bad("an escape must have its hexadecimal digits, got fewer");
      value = value << 4 | *d;
    }
    return CodeSet{{value, value}};
  }
  // \uHHHH, or two of them for a character behind U+FFFF.
  Result<CodeSet> code_unit() {
    HADAL_ASSIGN(CodeSet unit, hex(4));
    const uint32_t high = unit[0].low;
    if (high < 0xd800 || high > 0xdbff || !take("\\u")) return unit;
    HADAL_ASSIGN(const CodeSet second, hex(4));
    const uint32_t low = second[0].low;
    if (low < 0xdc00 || low > 0xdfff) return bad("surrogates must come in pairs, got one");
    const uint32_t c = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    return CodeSet{{c, c}};
  }
  Result<CodeSet> hex_in_braces() {
    uint32_t value = 0;
    for (auto d = digit(); d && value <= kLastCodePoint; d = digit()) value = value << 4 | *d;
    if (!take("}") || value > kLastCodePoint)
      return bad("\\u{...} must name a code point, got none");
    return CodeSet{{value, value}};
  }

  std::string_view text_;
  size_t at_ = 0;
};

// The tree's automaton, each repetition as often as it is counted. Recursion is as deep as the
// tree, which the parser has limited.
class Builder {
 public:
  Result<Nfa> run(const Tree& tree) {
    const uint32_t first = add({});
    const uint32_t last = build(tree, first);
    if (full_) {
      return Status(Errc::kUnsupported,
                    fmt::format("pattern: it must have at most {} states, repetitions counted out, "
                                "got more",
                                kMaxRegexStates));
    }
    nfa_.start = first, nfa_.end = last;
    return std::move(nfa_);
  }

 private:
  using State = Nfa::State;
  uint32_t add(State state) {
    if (nfa_.states.size() >= kMaxRegexStates) {
      full_ = true;
      return 0;
    }
    nfa_.states.push_back(state);
    return uint32_t(nfa_.states.size() - 1);
  }
  // A new state behind `from`, which has no step yet.
  uint32_t step(uint32_t from, Nfa::Step kind, uint32_t set = 0) {
    const uint32_t to = add({});
    nfa_.states[from].step = kind, nfa_.states[from].set = set, nfa_.states[from].to = to;
    return to;
  }

  // Appends `tree` behind `from`, which has no step yet; returns the state behind it, which has
  // none either.
  uint32_t build(const Tree& tree, uint32_t from) {
    if (full_) return from;
    switch (tree.kind) {
      case Tree::Kind::kBegin: return step(from, Nfa::Step::kBegin);
      case Tree::Kind::kEnd: return step(from, Nfa::Step::kEnd);
      case Tree::Kind::kSet:
        nfa_.sets.push_back(tree.set);
        return step(from, Nfa::Step::kSet, uint32_t(nfa_.sets.size() - 1));
      case Tree::Kind::kSequence:
        for (const Tree& part : tree.parts) from = build(part, from);
        return from;
      case Tree::Kind::kChoice: return build_choice(tree, from);
      case Tree::Kind::kRepeat: return build_repeat(tree, from);
    }
    return from;
  }
  uint32_t build_choice(const Tree& tree, uint32_t from) {
    const uint32_t end = add({});
    for (size_t i = 0; i < tree.parts.size() && !full_; ++i) {
      const bool last = i + 1 == tree.parts.size();
      const uint32_t fork = from, begin = step(fork, Nfa::Step::kEmpty);
      if (!last) nfa_.states[fork].also_to = from = add({});
      nfa_.states[build(tree.parts[i], begin)].to = end;
    }
    return end;
  }
  uint32_t build_repeat(const Tree& tree, uint32_t from) {
    const Tree& part = tree.parts.front();
    // Each time has a state of its own, so that an empty part that is repeated often ends, too.
    for (uint32_t i = 0; i < tree.least && !full_; ++i) {
      from = build(part, step(from, Nfa::Step::kEmpty));
    }
    const uint32_t end = add({});
    if (tree.most == kUnlimited) {
      const uint32_t loop = step(from, Nfa::Step::kEmpty), begin = step(loop, Nfa::Step::kEmpty);
      nfa_.states[loop].also_to = end;
      nfa_.states[build(part, begin)].to = loop;
      return end;
    }
    for (uint32_t i = tree.least; i < tree.most && !full_; ++i) {
      const uint32_t fork = from, begin = step(fork, Nfa::Step::kEmpty);
      nfa_.states[fork].also_to = end;
      from = build(part, begin);
    }
    nfa_.states[from].to = end;
    return end;
  }

  Nfa nfa_;
  bool full_ = false;
};

}  // namespace

Result<Nfa> parse_regex(std::string_view pattern) {
  HADAL_ASSIGN(const Tree tree, Parser(pattern).run());
  return Builder().run(tree);
}

}  // namespace hadal::runtime::grammar
