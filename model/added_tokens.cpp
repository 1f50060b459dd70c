// See added_tokens.h. The order of steps in Matcher::split is that of find_matches in the
// tokenizers library (added_vocabulary.rs), including what happens when stripped spaces and matches
// overlap.
#include "added_tokens.h"

#include <memory>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "byte_level.h"

namespace hadal::model::detail {
namespace {

// Unicode White_Space (PropList.txt); the list has been closed since Unicode 6.3.
bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

size_t last_char(std::string_view text) {
  size_t pos = text.size() - 1;
  while (pos > 0 && (static_cast<uint8_t>(text[pos]) & 0xC0) == 0x80) --pos;
  return pos;
}

// A character that \w of the library's regex crate matches. PCRE2's own \w is a smaller set; here
// it serves as the tables of properties. Only single_word tokens come here.
bool is_word_char(std::string_view text) {
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  constexpr std::string_view kWord = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])";
  static const std::unique_ptr<pcre2_code, Free> pattern([&] {
    int error = 0;
    size_t offset = 0;
    return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kWord.data()), kWord.size(),
                         PCRE2_UTF | PCRE2_ANCHORED, &error, &offset, nullptr);
  }());
  const std::unique_ptr<pcre2_match_data, Free> data(pcre2_match_data_create(1, nullptr));
  const std::string_view c = text.substr(0, utf8_char_length(text));
  return pattern != nullptr && data != nullptr &&
         pcre2_match(pattern.get(), reinterpret_cast<PCRE2_SPTR>(c.data()), c.size(), 0,
                     PCRE2_NO_UTF_CHECK, data.get(), nullptr) >= 0;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word_char(text.substr(last_char(text)));
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word_char(text);
}

// Where the white space at the end of `text` begins.
size_t trailing_space(std::string_view text) {
  while (!text.empty()) {
    const size_t pos = last_char(text);
    if (!is_space(utf8_code_point(text.substr(pos)))) break;
    text = text.substr(0, pos);
  }
  return text.size();
}

// Length of the white space at the start of `text`.
size_t leading_space(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size() && is_space(utf8_code_point(text.substr(pos)))) {
    pos += utf8_char_length(text.substr(pos));
  }
  return pos;
}

}  // namespace

void AddedTokens::add(const AddedToken& token) {
  (token.normalized ? second_ : first_).add(token);
}

std::vector<Segment> AddedTokens::split(std::string_view text) const {
  std::vector<Segment> coarse, fine;
  first_.split(text, coarse);
  if (second_.tokens.empty()) return coarse;
  for (const Segment& segment : coarse) {
    if (segment.id != Segment::kText) {
      fine.push_back(segment);
    } else {
      second_.split(segment.text, fine);
    }
  }
  return fine;
}

void AddedTokens::Matcher::add(const AddedToken& token) {
  uint32_t node = 0;
  for (const char c : token.content) {
    const uint64_t key = uint64_t{node} << 8 | static_cast<uint8_t>(c);
    const auto [it, inserted] = children.emplace(key, static_cast<uint32_t>(token_of_node.size()));
    if (inserted) token_of_node.push_back(Segment::kText);
    node = it->second;
  }
  token_of_node[node] = static_cast<uint32_t>(tokens.size());
  starts[static_cast<uint8_t>(token.content[0])] = true;
  tokens.push_back(token);
}

uint32_t AddedTokens::Matcher::longest(std::string_view text) const {
  uint32_t node = 0, best = Segment::kText;
  for (const char c : text) {
    const auto it = children.find(uint64_t{node} << 8 | static_cast<uint8_t>(c));
    if (it == children.end()) break;
    node = it->second;
    if (token_of_node[node] != Segment::kText) best = token_of_node[node];
  }
  return best;
}

void AddedTokens::Matcher::split(std::string_view text, std::vector<Segment>& out) const {
  size_t covered = 0;                 // everything before this is in `out`
  size_t run_begin = 1, run_end = 0;  // the last run of white space that was stripped
  for (size_t pos = 0; pos < text.size();) {
    if (!starts[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    const uint32_t index = longest(text.substr(pos));
    if (index == Segment::kText) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens[index];
    size_t begin = pos;
    size_t end = pos + token.content.size();
    pos = end;
    if (token.single_word &&
        (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    // Not beyond `covered`: the token before may have taken these spaces already.
    if (token.lstrip) {
      begin =
          covered + (begin < covered ? 0 : trailing_space(text.substr(covered, begin - covered)));
    }
    if (token.rstrip) {
      // A run of spaces is measured once, though each of them may be a token that wants it.
      if (end < run_begin || end > run_end) {
        run_begin = end;
        run_end = end + leading_space(text.substr(end));
      }
      end = run_end;
    }
    if (covered < begin) out.push_back({Segment::kText, text.substr(covered, begin - covered)});
    out.push_back({token.id, {}});
    covered = end;
  }
  if (covered < text.size()) out.push_back({Segment::kText, text.substr(covered)});
}

}  // namespace hadal::model::detail
