// The text of a request as it comes, against the naive way: decode everything, then look.
#include "hadal/runtime/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "support/big_tokenizer.h"
#include "support/random.h"

namespace hadal::runtime {
namespace {

const model::Tokenizer& tokenizer() {
  static const auto loaded =
      model::Tokenizer::load(HADAL_SOURCE_DIR "/examples/models/fables").value();
  return loaded;
}

// The text up to the match that ends first, the longest of those that end there.
struct Naive {
  std::string text;
  bool stopped = false;
};
Naive naive(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

// How much of the end of `text` a longer text could turn into a match.
size_t open_end(const std::string& text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string& stop : stops) {
    for (size_t n = 1; n < stop.size(); ++n) {
      if (text.ends_with(stop.substr(0, n))) longest = std::max(longest, n);
    }
  }
  return longest;
}

std::vector<std::string> pieces(StopMatcher matcher, const std::vector<std::string>& text) {
  std::vector<std::string> shown;
  for (const std::string& piece : text) shown.push_back(matcher.push(piece));
  shown.push_back(matcher.flush());
  return shown;
}

using Strings = std::vector<std::string>;

TEST(TextStreamHost, HoldsBackWhatCouldBecomeAStop) {
  const StopMatcher one({"STOP"});
  EXPECT_EQ(pieces(one, {"say S", "T", "OP it"}), (Strings{"say ", "", "", ""}));
  EXPECT_EQ(pieces(one, {"say S", "T", "AY"}), (Strings{"say ", "", "STAY", ""}));
  EXPECT_EQ(pieces(one, {"S", "", "TO"}), (Strings{"", "", "", "STO"}));  // the end frees it
  // Borders: the second a of aaab begins the stop.
  EXPECT_EQ(pieces(StopMatcher({"aab"}), {"a", "a", "a", "b"}), (Strings{"", "", "a", "", ""}));
  EXPECT_EQ(pieces(StopMatcher({"abac"}), {"ab", "ab", "ac"}), (Strings{"", "ab", "", ""}));
  // No stop holds nothing.
  EXPECT_EQ(pieces(StopMatcher({}), {"a", "b"}), (Strings{"a", "b", ""}));
}

TEST(TextStreamHost, TheMatchThatEndsFirstWinsThenTheLongest) {
  const auto run = [](Strings stops, const std::string& text, bool whole) {
    StopMatcher matcher(std::move(stops));
    std::string shown;
    if (whole) shown = matcher.push(text);
    for (size_t i = 0; !whole && i < text.size(); ++i) shown += matcher.push(text.substr(i, 1));
    return std::pair(shown + matcher.flush(), matcher.matched());
  };
  for (const bool whole : {true, false}) {  // the same, however the text comes
    EXPECT_EQ(run({"bcd", "c"}, "abcde", whole), std::pair(std::string("ab"), std::optional(1ul)));
    EXPECT_EQ(run({"c", "bc"}, "abcde", whole), std::pair(std::string("a"), std::optional(1ul)));
    EXPECT_EQ(run({"bc", "c"}, "abcde", whole), std::pair(std::string("a"), std::optional(0ul)));
    EXPECT_EQ(run({"e", "e"}, "abcde", whole), std::pair(std::string("abcd"), std::optional(0ul)));
  }
}

TEST(TextStreamHost, RefusesStopsThatCouldNeverAppear) {
  const auto message = [](Strings stops) {
    const auto stream = TextStream::create(tokenizer(), std::move(stops));
    EXPECT_EQ(stream.status().code(), Errc::kInvalidArgument);
    return stream.status().message();
  };
  EXPECT_EQ(message({"a", ""}),
            "stop: strings must have at least one character, got none at index 1");
  EXPECT_TRUE(message({"a\xc3"}).starts_with("stop: string 0: ")) << message({"a\xc3"});
}

TEST(TextStreamHost, CharactersComeWhole) {
  // "ö" as its two bytes, then an unfinished one.
  const auto byte = [](const char* token) { return *tokenizer().token_to_id(token); };
  const std::vector<uint32_t> ids = {byte("Ã"), byte("¶"), byte("Ã")};
  auto stream = *TextStream::create(tokenizer(), {});
  EXPECT_EQ(*stream.push(ids[0]), "");
  EXPECT_EQ(*stream.push(ids[1]), "ö");
  EXPECT_EQ(*stream.push(ids[2]), "");
  EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
  // A stop of several bytes whose tokens split it; a character that shares its first byte passes.
  stream = *TextStream::create(tokenizer(), {"ö"});
  EXPECT_EQ(*stream.push(byte("Ã")), "");
  EXPECT_EQ(*stream.push(byte("¤")), "ä");
  EXPECT_EQ(*stream.push(byte("Ã")), "");
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(*stream.push(byte("¶")), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(*stream.push(byte("¶")), "");  // nothing follows a stop
}

TEST(TextStreamHost, SpecialTokensAreNoText) {
  const uint32_t special = *tokenizer().eos_id();
  const uint32_t a = *tokenizer().token_to_id("a"), b = *tokenizer().token_to_id("b");
  auto stream = *TextStream::create(tokenizer(), {"ab"});
  EXPECT_EQ(*stream.push(a), "");
  EXPECT_EQ(*stream.push(special), "");
  EXPECT_EQ(*stream.push(b), "");
  EXPECT_TRUE(stream.stopped());
  // Unless they are asked for.
  stream = *TextStream::create(tokenizer(), {*tokenizer().id_to_token(special)}, false);
  EXPECT_EQ(*stream.push(a), "a");
  EXPECT_EQ(*stream.push(special), "");
  EXPECT_TRUE(stream.stopped());
}

TEST(TextStreamHost, AnIdOutsideTheVocabularyIsAnError) {
  auto stream = *TextStream::create(tokenizer(), {});
  EXPECT_EQ(stream.push(tokenizer().vocab_size()).status().code(), Errc::kInvalidArgument);
}

// A short alphabet, so that stops overlap with themselves, each other and the text.
std::string random_text(test::Random& random, uint32_t most) {
  static const Strings letters = {"a", "b", "aa", "ö", "ä", "\xE2\x82\xAC", "\xEF\xBF\xBD"};
  std::string text;
  for (uint32_t n = 1 + random.below(most); n > 0; --n) {
    text += letters[random.below(uint32_t(letters.size()))];
  }
  return text;
}

TEST(TextStreamHost, RandomTextsInRandomPieces) {
  test::Random random(11);
  uint32_t stopped = 0;
  for (int round = 0; round < 20000; ++round) {
    Strings stops(random.below(4));
    for (std::string& stop : stops) stop = random_text(random, 5);
    const std::string text = random_text(random, 30);
    const Naive expected = naive(text, stops);
    StopMatcher matcher(stops);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const std::string piece = text.substr(at, random.below(4));
      shown += matcher.push(piece);
      at += piece.size();
      ASSERT_TRUE(expected.text.starts_with(shown)) << shown;
      if (matcher.matched()) continue;
      // Nothing too early, nothing later than it must.
      ASSERT_EQ(shown.size() + open_end(text.substr(0, at), stops), at) << text;
    }
    shown += matcher.flush();
    ASSERT_EQ(shown, expected.text) << text;
    ASSERT_EQ(matcher.matched().has_value(), expected.stopped);
    stopped += expected.stopped;
  }
  EXPECT_GT(stopped, 5000u);
  EXPECT_LT(stopped, 19000u);
}

// Any ids at all: bytes that are no characters, special tokens, stops that span tokens.
TEST(TextStreamHost, RandomIdsLikeDecodingAll) {
  const auto big =
      model::Tokenizer::parse(test::big_tokenizer_json({.vocab_size = 600, .seed = 3}), "", "big");
  ASSERT_TRUE(big.ok()) << big.status().message();
  test::Random random(12);
  uint32_t stopped = 0;
  for (int round = 0; round < 4000; ++round) {
    std::vector<uint32_t> ids(1 + random.below(40));
    for (uint32_t& id : ids) id = random.below(big->vocab_size());
    const std::string text = *big->decode(ids);
    Strings stops;
    for (uint32_t n = random.below(3); n > 0 && !text.empty(); --n) {
      const size_t at = random.below(uint32_t(text.size()));
      std::string stop = text.substr(at, 1 + random.below(6));
      if (big->encode(stop, false).ok()) stops.push_back(std::move(stop));
    }
    const Naive expected = naive(text, stops);
    auto stream = TextStream::create(*big, stops);
    ASSERT_TRUE(stream.ok()) << stream.status().message();
    std::string shown;
    for (size_t i = 0; i < ids.size() && !stream->stopped(); ++i) {
      shown += *stream->push(ids[i]);
      ASSERT_TRUE(big->encode(shown, false).ok()) << "half a character";
    }
    shown += stream->flush();
    ASSERT_EQ(shown, expected.text);
    ASSERT_EQ(stream->stopped(), expected.stopped);
    stopped += expected.stopped;
  }
  EXPECT_GT(stopped, 1000u);
}

}  // namespace
}  // namespace hadal::runtime
