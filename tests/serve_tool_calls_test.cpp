// Calls of tools told from a text, wherever its pieces end.
#include "serve/tool_calls.h"

#include <gtest/gtest.h>

#include <random>

#include "serve/tool_forms.h"
#include "support/fuzz.h"

namespace hadal::serve {
namespace {

struct Call {
  std::string name, arguments;
  bool operator==(const Call&) const = default;
};

struct Parsed {
  std::string text;
  std::vector<Call> calls;
  bool operator==(const Parsed&) const = default;
};

void PrintTo(const Parsed& parsed, std::ostream* out) {
  *out << "text \"" << parsed.text << "\"";
  for (const Call& call : parsed.calls) *out << ", " << call.name << "(" << call.arguments << ")";
}

// Joins what comes as a client does.
class Joiner {
 public:
  void take(const TextAndCalls& news) {
    parsed.text += news.text;
    for (const ToolCall& call : news.calls) {
      if (call.begins) {
        ASSERT_EQ(call.index, parsed.calls.size());
        parsed.calls.push_back({call.name, ""});
      } else {
        ASSERT_TRUE(call.name.empty());
      }
      ASSERT_EQ(call.index + 1, parsed.calls.size()) << "only the last call goes on";
      parsed.calls.back().arguments += call.arguments;
    }
  }
  Parsed parsed;
};

Parsed parse(const std::vector<std::string>& pieces) {
  ToolCallSplitter splitter;
  Joiner joiner;
  for (const std::string& piece : pieces) {
    TextAndCalls news;
    splitter.push(piece, news);
    joiner.take(news);
  }
  TextAndCalls rest;
  splitter.flush(rest);
  joiner.take(rest);
  EXPECT_EQ(splitter.calls(), joiner.parsed.calls.size());
  return joiner.parsed;
}

std::vector<std::string> bytes_of(const std::string& text) {
  std::vector<std::string> bytes;
  for (const char c : text) bytes.emplace_back(1, c);
  return bytes;
}

// In one piece, in two at each place, in bytes: the same.
void expect(const std::string& text, const Parsed& expected) {
  ASSERT_EQ(parse({text}), expected) << text;
  ASSERT_EQ(parse(bytes_of(text)), expected) << text;
  for (size_t cut = 1; cut < text.size(); ++cut) {
    ASSERT_EQ(parse({text.substr(0, cut), text.substr(cut)}), expected) << text << " at " << cut;
  }
}

TEST(ServeToolCallsHost, CallsOfBothForms) {
  const std::string paris = R"({"city": "Paris", "code": "a<b \n```"})";
  expect(kBegin + v31("weather", paris) + kEnd, {"", {{"weather", paris}}});
  expect(kBegin + v3("weather", paris) + kEnd, {"", {{"weather", paris}}});
  expect("I'll look.\n" + kBegin + v31("a", "{}") + v31("b.c-d", "{ }\n") + kEnd,
         {"I'll look.\n", {{"a", "{}"}, {"b.c-d", "{ }\n"}}});
  expect("é " + kBegin + v3("a", "{}") + "\n" + v3("b", "{\n}") + kEnd + " done",
         {"é  done", {{"a", "{}"}, {"b", "{\n}"}}});
  expect(kBegin + v31("function", "{}") + kEnd, {"", {{"function", "{}"}}});
  expect(kBegin + "\n" + v3("function", "") + "\n" + kEnd, {"", {{"function", ""}}});
  // Arguments go on as they are written, and a fence inside of them stays.
  expect(kBegin + v31("a", "no JSON") + v31("b", "") + kEnd, {"", {{"a", "no JSON"}, {"b", ""}}});
  expect(kBegin + v3("a", "x\n```\n```") + kEnd, {"", {{"a", "x\n```\n```"}}});
  expect(kBegin + v31("a", "{}\n```") + kEnd, {"", {{"a", "{}\n```"}}});
  expect(kBegin + v31("a", "{}") + kEnd + "\n" + kBegin + kEnd,
         {"\n" + kBegin + kEnd, {{"a", "{}"}}});
  expect(kBegin + v31("a", "{}") + kEnd + "so " + kBegin + v31("b", "1") + kEnd,
         {"so ", {{"a", "{}"}, {"b", "1"}}});
}

TEST(ServeToolCallsHost, WhatIsNoCallIsText) {
  for (const std::string& text :
       {std::string(), std::string("plain"), std::string("a < b <｜tool"), kBegin + kEnd,
        kBegin + " and so on", v31("a", "{}"), kDone + kSep + kEnd, kBegin + kCall + kDone + kEnd,
        kBegin + kCall + kSep + "{}" + kDone + kEnd, kBegin + kCall + "a\nb" + kSep + "{}",
        kBegin + kCall + "a" + kCall + "b" + kSep, kBegin + kCall + "function" + kSep + "a\n{}",
        kBegin + kCall + "function" + kSep + "\n```json\n{}\n```" + kDone + kEnd,
        kBegin + kCall + std::string(257, 'n') + kSep + "{}" + kDone + kEnd,
        kBegin + std::string(257, ' ') + v31("a", "{}"), kBegin + kBegin + kEnd,
        // Cut before the name has ended.
        kBegin, kBegin + "\n", kBegin + "<｜tool▁", kBegin + kCall + "get_wea",
        kBegin + kCall + "get_weather<｜tool▁s", kBegin + kCall + "function" + kSep + "a\n```js"}) {
    expect(text, {text, {}});
  }
  // What stands between calls is text but for white space.
  expect(kBegin + v31("a", "{}") + " , \n" + v31("b", "{}") + kEnd,
         {" , \n", {{"a", "{}"}, {"b", "{}"}}});
  expect(kBegin + v31("a", "{}") + "\n" + kCall + "?\n" + kDone + v31("b", "{}") + kEnd + "!",
         {"\n" + kCall + "?\n" + kDone + "!", {{"a", "{}"}, {"b", "{}"}}});
  expect(kBegin + kCall + "?\n" + kBegin + v31("b", "{}") + kEnd,
         {kBegin + kCall + "?\n", {{"b", "{}"}}});
  expect(kBegin + std::string(256, ' ') + v31("n" + std::string(255, 'm'), "{}") + kEnd,
         {"", {{"n" + std::string(255, 'm'), "{}"}}});
}

TEST(ServeToolCallsHost, CutCallsHaveTheArgumentsThatCame) {
  const std::string head = kBegin + kCall + "a" + kSep;
  const std::string fence = kBegin + kCall + "function" + kSep + "a\n```json\n";
  for (const std::string& begin : {head, fence}) {
    expect(begin, {"", {{"a", ""}}});
    expect(begin + "{\"x\": \"a <", {"", {{"a", "{\"x\": \"a <"}}});
    expect(begin + "{}" + kEnd, {"", {{"a", "{}"}}});
    expect(begin + "{}" + kEnd + "\n", {"\n", {{"a", "{}"}}});
    expect(begin + "{}" + kDone, {"", {{"a", "{}"}}});
    expect(begin + "{}" + kDone + "\n", {"", {{"a", "{}"}}});
    expect(begin + "{}" + kDone + "<｜tool", {"<｜tool", {{"a", "{}"}}});
  }
  expect(head + "{}\n```", {"", {{"a", "{}\n```"}}});
  expect(fence + "{}\n```", {"", {{"a", "{}"}}});
  expect(fence + "{}\n```" + kDone.substr(0, 9), {"", {{"a", "{}"}}});
  expect(fence + "{}\n``", {"", {{"a", "{}\n``"}}});
  expect(fence + "{}\n```" + kEnd, {"", {{"a", "{}"}}});
}

// Whatever the pieces: calls that were written are read, each once.
TEST(ServeToolCallsHost, RandomCallsInRandomPieces) {
  std::mt19937 random(5);
  const std::vector<std::string> scraps = {"{",   "}",     "\"a\": ", "<", "<｜tool", "\n", "`",
                                           "```", "\n```", "é",       "😀", " ",       "x"};
  const auto scrawl = [&](size_t most) {
    std::string text;
    for (size_t n = random() % (most + 1); n > 0; --n) text += scraps[random() % scraps.size()];
    return text;
  };
  for (hadal::testing::FuzzRounds rounds(2000); rounds.next();) {
    // Text, then sections of calls with text behind each.
    Parsed expected{scrawl(6), {}};
    std::string text = expected.text;
    for (size_t sections = random() % 3; sections > 0; --sections) {
      text += kBegin;
      const bool fenced = random() % 2;
      for (size_t calls = 1 + random() % 3; calls > 0; --calls) {
        Call call{random() % 4 ? "name-" + std::to_string(random() % 100) : "function", scrawl(9)};
        if (!fenced && call.name == "function") call.arguments = "{" + call.arguments;
        text += fenced ? v3(call.name, call.arguments) : v31(call.name, call.arguments);
        if (fenced && calls > 1) text += '\n';
        expected.calls.push_back(std::move(call));
      }
      const std::string behind = scrawl(3);
      text += kEnd + behind;
      expected.text += behind;
    }
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      pieces.push_back(text.substr(at, 1 + random() % 30));
      at += pieces.back().size();
    }
    ASSERT_EQ(parse(pieces), expected) << text;
  }
}

// Marks and words in any order: no word is lost or doubled, and pieces make no difference.
TEST(ServeToolCallsHost, FuzzMarksInAnyOrder) {
  std::mt19937 random(6);
  const std::vector<std::string> marks = {kBegin,     kEnd,          kCall,          kDone, kSep,
                                          "function", "\n```json\n", "\n```",        "\n",  " ",
                                          "{",        "<",           "<｜tool▁call", "｜>"};
  int with_calls = 0;
  for (hadal::testing::FuzzRounds rounds(5000); rounds.next();) {
    std::string text;
    std::vector<std::string> words;
    for (size_t n = random() % 25; n > 0; --n) {
      if (random() % 4 == 0) {
        words.push_back("w" + std::to_string(words.size()) + ";");
        text += words.back();
      } else if (random() % 3 == 0) {
        text += kBegin + kCall;  // else few calls would begin
      } else {
        text += marks[random() % marks.size()];
      }
    }
    const Parsed whole = parse({text});
    with_calls += !whole.calls.empty();
    std::string all = whole.text;
    for (const Call& call : whole.calls) all += call.name + call.arguments;
    for (const std::string& word : words) {
      const size_t at = all.find(word);
      ASSERT_NE(at, all.npos) << word << " of " << text;
      ASSERT_EQ(all.find(word, at + 1), all.npos) << word << " of " << text;
    }
    ASSERT_EQ(parse(bytes_of(text)), whole) << text;
    const size_t cut = random() % (text.size() + 1);
    ASSERT_EQ(parse({text.substr(0, cut), text.substr(cut)}), whole) << text << " at " << cut;
  }
  EXPECT_GT(with_calls, 200);
}

}  // namespace
}  // namespace hadal::serve
