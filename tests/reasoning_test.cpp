// Reasoning told from answers: however a text is cut, the parts are those of the whole, and what
// can be shown is shown at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "common/reasoning.h"

namespace hadal::examples {
namespace {

struct Parts {
  std::string reasoning, answer;
  bool operator==(const Parts&) const = default;
  void operator+=(const SplitText& split) { reasoning += split.reasoning, answer += split.answer; }
};

std::ostream& operator<<(std::ostream& out, const Parts& parts) {
  return out << "[" << parts.reasoning << "|" << parts.answer << "]";
}

// The rule, on a whole text.
Parts parts_of(Reasoning how, std::string text) {
  bool reasons = how == Reasoning::kOpen;
  if (how == Reasoning::kPossible) {
    size_t at = 0;
    while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at]))) ++at;
    reasons = text.compare(at, 7, "<think>") == 0;
    if (reasons) text.erase(0, text.compare(at + 7, 1, "\n") == 0 ? at + 8 : at + 7);
  }
  if (!reasons) return {"", text};
  const size_t end = text.find("</think>");
  if (end == text.npos) return {text, ""};
  return {text.substr(0, end), text.substr(end + 8)};
}

std::string common_begin(const std::string& a, const std::string& b) {
  return {a.begin(), std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first};
}

// What every continuation of a text has in common.
Parts certain(Reasoning how, const std::string& text) {
  static const std::vector<std::string> continuations = [] {
    std::vector<std::string> all = {"x", " ", "\n", "\nx"};
    for (const std::string mark : {"<think>", "</think>"}) {
      for (size_t i = 0; i < mark.size(); ++i) all.push_back(mark.substr(i) + "x");
    }
    return all;
  }();
  Parts common = parts_of(how, text);
  for (const std::string& more : continuations) {
    const Parts other = parts_of(how, text + more);
    common.reasoning = common_begin(common.reasoning, other.reasoning);
    common.answer = common_begin(common.answer, other.answer);
  }
  return common;
}

// All texts of up to `length` pieces that have to do with marks.
std::vector<std::string> texts(size_t length) {
  const std::vector<std::string> pieces = {"<think>", "</think>", "<thi", "nk>", "</th",
                                           "\n",      " ",        "x",    "<"};
  std::vector<std::string> all = {""};
  for (size_t begin = 0; length-- > 0;) {
    const size_t end = all.size();
    for (; begin < end; ++begin) {
      for (const std::string& piece : pieces) all.push_back(all[begin] + piece);
    }
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

constexpr std::array kAll = {Reasoning::kNever, Reasoning::kPossible, Reasoning::kOpen};

TEST(ReasoningHost, ShowsWhatIsCertainAndAllInTheEnd) {
  for (const Reasoning how : kAll) {
    for (const std::string& text : texts(4)) {
      ReasoningSplitter splitter(how);
      Parts shown;
      for (size_t i = 0; i < text.size(); ++i) {
        shown += splitter.push(text.substr(i, 1));
        ASSERT_EQ(shown, certain(how, text.substr(0, i + 1))) << text << " " << i;
      }
      shown += splitter.flush();
      ASSERT_EQ(shown, parts_of(how, text)) << text;
    }
  }
}

TEST(ReasoningHost, CutsDoNotMatter) {
  const std::vector<std::string> some = {"I think </thin so.</think>\n\nAnswer </think>.",
                                         "<think>\n\nhm <think></think>\n\nHi <think>",
                                         " \n<think></think>Hi",
                                         "\t<think>x</th",
                                         "  <thinking> is <think>",
                                         "Hi</think>there"};
  for (const Reasoning how : kAll) {
    for (const std::string& text : some) {
      for (size_t a = 0; a <= text.size(); ++a) {
        for (size_t b = a; b <= text.size(); ++b) {
          ReasoningSplitter splitter(how);
          Parts shown;
          for (const std::string& piece :
               {text.substr(0, a), text.substr(a, b - a), text.substr(b)}) {
            shown += splitter.push(piece);
          }
          shown += splitter.flush();
          ASSERT_EQ(shown, parts_of(how, text)) << text << " " << a << " " << b;
        }
      }
    }
  }
}

TEST(ReasoningHost, OpenedByTheModel) {
  const auto whole = [](const std::string& text) {
    ReasoningSplitter splitter(Reasoning::kPossible);
    Parts parts;
    parts += splitter.push(text);
    parts += splitter.flush();
    EXPECT_EQ(splitter.has_begun(), parts.answer != text);
    return parts;
  };
  EXPECT_EQ(whole("<think>\nhm\n</think>\n\nHi"), (Parts{"hm\n", "\n\nHi"}));
  EXPECT_EQ(whole("\n <think>hm"), (Parts{"hm", ""}));
  EXPECT_EQ(whole("<think>\n\n</think>Hi"), (Parts{"\n", "Hi"}));  // as behind R1's prompt
  EXPECT_EQ(whole("<think></think>Hi"), (Parts{"", "Hi"}));
  EXPECT_EQ(whole("<think>"), (Parts{"", ""}));
  for (const char* answer : {"", " \n", "<think", "\n<th", "<thinking", "Hi <think>x</think>",
                             "x</think>y", "</think><think>"}) {
    EXPECT_EQ(whole(answer), (Parts{"", answer}));
  }
}

TEST(ReasoningHost, MarksWithoutText) {
  using enum ReasoningMark;
  const auto parts = [](Reasoning how,
                        const std::vector<std::pair<std::string, ReasoningMark>>& pieces) {
    ReasoningSplitter splitter(how);
    Parts shown;
    for (const auto& [text, mark] : pieces) shown += splitter.push(text, mark);
    shown += splitter.flush();
    return shown;
  };
  EXPECT_EQ(parts(Reasoning::kPossible, {{"", kBegin}, {"\nhm", kNone}, {"", kEnd}, {"Hi", kNone}}),
            (Parts{"hm", "Hi"}));
  EXPECT_EQ(parts(Reasoning::kPossible,
                  {{" \n", kNone}, {"", kBegin}, {"hm</th", kEnd}, {"ink>", kNone}}),
            (Parts{"hm</th", "ink>"}));
  EXPECT_EQ(parts(Reasoning::kPossible, {{" <thi", kBegin}, {"x", kNone}}), (Parts{"", " <thix"}));
  EXPECT_EQ(parts(Reasoning::kPossible, {{"Hi", kBegin}, {"x", kEnd}}), (Parts{"", "Hix"}));
  EXPECT_EQ(parts(Reasoning::kPossible, {{"", kEnd}, {"x", kBegin}}), (Parts{"", "x"}));
  EXPECT_EQ(parts(Reasoning::kOpen, {{"hm", kBegin}, {"x", kEnd}, {"Hi", kNone}}),
            (Parts{"hmx", "Hi"}));
  EXPECT_EQ(parts(Reasoning::kNever, {{"", kBegin}, {"x", kEnd}}), (Parts{"", "x"}));
}

TEST(ReasoningHost, WhichTokensHaveNoText) {
  for (const bool special : {false, true}) {
    const std::string flag = special ? "true" : "false";
    const auto added = [&](int id, const char* name) {
      return R"({"id":)" + std::to_string(id) + R"(,"content":")" + name + R"(","special":)" +
             flag + R"(,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false})";
    };
    const auto tokenizer = model::Tokenizer::parse(
        R"({"added_tokens":[)" + added(1, "<think>") + "," + added(2, "</think>") +
            R"(],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
            R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})",
        "", "test");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const SpecialMarks marks(*tokenizer);
    EXPECT_EQ(marks.of(0), ReasoningMark::kNone);
    EXPECT_EQ(marks.of(1), special ? ReasoningMark::kBegin : ReasoningMark::kNone);
    EXPECT_EQ(marks.of(2), special ? ReasoningMark::kEnd : ReasoningMark::kNone);
  }
}

TEST(ReasoningHost, PromptsThatOpenIt) {
  for (const char* open : {"<think>", "a<think>\n", "<think> \n\n"}) {
    EXPECT_EQ(reasoning_behind(open), Reasoning::kOpen) << open;
  }
  for (const char* other : {"", "a", "</think>", "<think>x"}) {
    EXPECT_EQ(reasoning_behind(other), Reasoning::kPossible) << other;
  }
}

}  // namespace
}  // namespace hadal::examples
