// The tokenizer against ids of the `tokenizers` library (tests/golden), hostile files and hostile
// text.
#include "hadal/model/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/big_tokenizer.h"
#include "support/fuzz.h"

namespace {

using hadal::Errc;
using hadal::model::StreamDecoder;
using hadal::model::Tokenizer;
using hadal::test::big_tokenizer_detail::next_random;
using hadal::testing::FuzzRounds;
using nlohmann::json;
using Ids = std::vector<uint32_t>;

const std::filesystem::path kRoot = HADAL_SOURCE_DIR;
const std::filesystem::path kFables = kRoot / "examples/models/fables";

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

const json& fables_json() {
  static const json parsed = json::parse(read(kFables / "tokenizer.json"));
  return parsed;
}

const Tokenizer& fables() {
  static const auto tokenizer = Tokenizer::load(kFables);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return *tokenizer;
}

const std::string& big_json() {
  static const std::string text =
      hadal::test::big_tokenizer_json({128000, 1, read(kRoot / "tests/golden/fables_heldout.txt")});
  return text;
}

const Tokenizer& big() {
  static const auto tokenizer = Tokenizer::parse(big_json(), "", "big");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return *tokenizer;
}

std::string decode_streaming(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const uint32_t id : ids) {
    const auto piece = decoder.push(id);
    EXPECT_TRUE(piece.ok()) << piece.status().message();
    if (piece.ok()) text += *piece;
  }
  return text + decoder.flush();
}

// A text of any characters but surrogates, with runs and ASCII made likely.
std::string random_text(uint64_t& state) {
  std::string text;
  const auto append = [&](uint32_t c) {
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      text += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
               static_cast<char>(0x80 | (c & 63))};
    } else {
      text += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
               static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    }
  };
  for (uint64_t n = next_random(state) % 30; n > 0; --n) {
    constexpr uint32_t kLimits[] = {0x80, 0x80, 0x800, 0x3100, 0x10000, 0x110000};
    const uint32_t c = static_cast<uint32_t>(next_random(state) % kLimits[next_random(state) % 6]);
    if (c >= 0xD800 && c < 0xE000) continue;
    for (uint64_t run = next_random(state) % 8 == 0 ? next_random(state) % 100 : 1; run > 0;
         --run) {
      append(c);
    }
  }
  return text;
}

// The status of a file that must not load.
hadal::Status refusal(const std::string& text, const std::string& config = "") {
  const auto tokenizer = Tokenizer::parse(text, config, "m");
  EXPECT_FALSE(tokenizer.ok()) << text.substr(0, 200);
  EXPECT_EQ(tokenizer.status().message().find('\n'), std::string::npos);
  EXPECT_LT(tokenizer.status().message().size(), 400u);
  return tokenizer.status();
}

hadal::Status refusal_of(const json& patch) {
  json patched = fables_json();
  patched.merge_patch(patch);
  return refusal(patched.dump());
}

json split_by(const std::string& regex) {
  return {{"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"},
               {"pattern", {{"Regex", regex}}},
               {"behavior", "Isolated"},
               {"invert", false}},
              {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}}};
}

TEST(Tokenizer, EqualsTheLibraryOnFables) {
  const json cases = json::parse(read(kRoot / "tests/golden/tokenizer_fables.json"));
  ASSERT_EQ(cases.size(), 109u);
  for (const json& c : cases) {
    const auto ids = fables().encode(c["text"].get<std::string>());
    ASSERT_TRUE(ids.ok()) << ids.status().message();
    EXPECT_EQ(*ids, c["ids"].get<Ids>()) << c["text"];
    const auto text = fables().decode(*ids, false);
    ASSERT_TRUE(text.ok());
    EXPECT_EQ(*text, c["decoded"].get<std::string>());
  }
}

// Random texts and ids through fables' tokenizer.json and through that file with other features
// (a JSON merge patch), written by tests/tools/compare_tokenizers.py.
TEST(Tokenizer, EqualsTheLibraryWithEveryFeature) {
  const json variants = json::parse(read(kRoot / "tests/golden/tokenizer_more.json"));
  ASSERT_GT(variants.size(), 20u);
  for (const json& variant : variants) {
    json patched = fables_json();
    patched.merge_patch(variant["patch"]);
    const auto tokenizer = Tokenizer::parse(patched.dump(), "", variant["name"]);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    for (const json& c : variant["encode"]) {
      const auto ids = tokenizer->encode(c["text"].get<std::string>());
      ASSERT_TRUE(ids.ok()) << ids.status().message();
      EXPECT_EQ(*ids, c["ids"].get<Ids>()) << variant["name"] << c["text"];
    }
    for (const json& c : variant["decode"]) {
      const Ids ids = c["ids"].get<Ids>();
      const auto text = tokenizer->decode(ids, false);
      ASSERT_TRUE(text.ok()) << text.status().message();
      EXPECT_EQ(*text, c["text"].get<std::string>()) << variant["name"] << c["ids"];
      EXPECT_EQ(decode_streaming(*tokenizer, ids, false), *text);
    }
  }
}

// Oniguruma's \w takes the superscript two for a word character, but not inside a class: seen in
// the library by compare_tokenizers.py --pairs.
TEST(Tokenizer, WordCharactersAreOnigurumas) {
  for (const auto& [regex, joined] : {std::pair(R"(\w+)", true), std::pair(R"([\w]+)", false)}) {
    json patched = fables_json();
    patched.merge_patch(split_by(regex));
    patched["model"]["vocab"]["t\u00c2"] = 2044;  // t and the first byte of U+00B2
    patched["model"]["merges"] = json::array({json::array({"t", "\u00c2"})});
    patched["added_tokens"] = json::array();
    const auto tokenizer = Tokenizer::parse(patched.dump(), "", "m");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    EXPECT_EQ(tokenizer->encode("t\u00b2")->front() == 2044, joined) << regex;
  }
}

TEST(Tokenizer, SpecialTokens) {
  EXPECT_EQ(fables().bos_id(), 0u);
  EXPECT_EQ(fables().eos_id(), 1u);
  EXPECT_FALSE(fables().adds_bos());
  EXPECT_EQ(fables().vocab_size(), 2048u);
  EXPECT_EQ(fables().token_to_id("<think>"), 2046u);
  EXPECT_EQ(fables().token_to_id("no such token"), std::nullopt);
  EXPECT_EQ(fables().id_to_token(2047), "</think>");
  EXPECT_EQ(fables().id_to_token(2048), std::nullopt);

  const auto ids = fables().encode("<\uff5cUser\uff5c>a<think>b<\uff5cUser>");
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->at(0), 2044u);
  EXPECT_EQ(ids->at(2), 2046u);
  EXPECT_EQ(*fables().decode(*ids), "a<think>b<\uff5cUser>");
  EXPECT_EQ(*fables().decode(*ids, false), "<\uff5cUser\uff5c>a<think>b<\uff5cUser>");
}

TEST(Tokenizer, ConfigAddsBosAndEos) {
  const std::string text = fables_json().dump();
  const auto load = [&](const std::string& config) {
    auto tokenizer = Tokenizer::parse(text, config, "m");
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    return std::move(*tokenizer);
  };
  const Tokenizer with_bos =
      load(R"({"bos_token":{"__type":"AddedToken","content":"<｜begin▁of▁sentence｜>"},)"
           R"("add_bos_token":true,"eos_token":"<｜end▁of▁sentence｜>"})");
  EXPECT_TRUE(with_bos.adds_bos());
  EXPECT_EQ(with_bos.eos_id(), 1u);
  EXPECT_EQ(*with_bos.encode("a"), (Ids{0, 67}));
  EXPECT_EQ(*with_bos.encode("a", false), (Ids{67}));
  const Tokenizer with_eos = load(R"({"eos_token":"</think>","add_eos_token":true})");
  EXPECT_EQ(*with_eos.encode("a"), (Ids{67, 2047}));
  EXPECT_EQ(with_eos.bos_id(), std::nullopt);
  EXPECT_EQ(load("").bos_id(), std::nullopt);
  EXPECT_EQ(load(R"({"bos_token":null,"eos_token":"absent"})").eos_id(), std::nullopt);

  EXPECT_EQ(refusal(text, R"({"add_bos_token":true})").code(), Errc::kMalformed);
  EXPECT_EQ(
      refusal(text, R"({"bos_token":7})").message(),
      "m/tokenizer_config.json: bos_token must be a string, an object with a content or null, "
      "got 7");
  EXPECT_EQ(refusal(text, "[]").message(),
            "m/tokenizer_config.json: file must hold a JSON object, got []");
}

TEST(Tokenizer, LoadReportsFiles) {
  EXPECT_EQ(Tokenizer::load("/no/such/folder").status().code(), Errc::kIo);
  EXPECT_NE(Tokenizer::load("/no/such/folder").status().message().find("/no/such/folder"),
            std::string::npos);
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  for (const std::string bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5", "\xFF", "\xC3", "\xE4\xBA", "\xF0\x9F\x98", "\xC3("}) {
    const auto ids = fables().encode("ab\u4eba" + bad);
    ASSERT_FALSE(ids.ok());
    EXPECT_EQ(ids.status().code(), Errc::kInvalidArgument);
    EXPECT_NE(ids.status().message().find("at offset 5"), std::string::npos);
  }
  EXPECT_TRUE(fables().encode(std::string("\0a\0", 3)).ok());
}

TEST(Tokenizer, RefusesUnknownIds) {
  for (const uint32_t id : {2048u, 4000000000u, UINT32_MAX}) {
    EXPECT_EQ(fables().decode(Ids{67, id}).status().code(), Errc::kInvalidArgument);
    StreamDecoder decoder(fables());
    EXPECT_EQ(decoder.push(id).status().code(), Errc::kInvalidArgument);
  }
}

TEST(Tokenizer, StreamsWholeCharacters) {
  const std::string text = "na\u00efve \u4eba\U0001F600 e\u0301";
  for (const Tokenizer* tokenizer : {&fables(), &big()}) {
    const auto ids = tokenizer->encode(text);
    ASSERT_TRUE(ids.ok());
    StreamDecoder decoder(*tokenizer);
    std::string all;
    for (const uint32_t id : *ids) {
      const std::string piece = *decoder.push(id);
      EXPECT_TRUE(tokenizer->encode(piece).ok()) << "half a character";
      EXPECT_EQ(piece.find("\uFFFD"), std::string::npos);
      all += piece;
    }
    EXPECT_EQ(all + decoder.flush(), text);
    EXPECT_EQ(decoder.flush(), "");
  }
  // An unfinished character waits, and becomes one U+FFFD at the end.
  StreamDecoder decoder(fables());
  const Ids ids = *fables().encode("\u4eba");
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(*decoder.push(ids[0]), "");
  EXPECT_EQ(*decoder.push(ids[1]), "");
  EXPECT_EQ(*decoder.push(67),
            "\uFFFD"
            "a");
  EXPECT_EQ(*decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.flush(), "\uFFFD");
}

TEST(Tokenizer, RandomTextComesBack) {
  uint64_t state = 7;
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_text(state);
    for (const Tokenizer* tokenizer : {&fables(), &big()}) {
      const auto ids = tokenizer->encode(text);
      ASSERT_TRUE(ids.ok()) << ids.status().message();
      ASSERT_EQ(*tokenizer->decode(*ids), text);
    }
  }
}

TEST(Tokenizer, RandomIdsStreamAsTheyDecode) {
  uint64_t state = 8;
  for (int i = 0; i < 3000; ++i) {
    Ids ids(next_random(state) % 20);
    for (uint32_t& id : ids) {
      id = static_cast<uint32_t>(next_random(state) % (i % 2 ? 260 : fables().vocab_size()));
    }
    for (const bool skip_special : {false, true}) {
      ASSERT_EQ(decode_streaming(fables(), ids, skip_special), *fables().decode(ids, skip_special));
    }
  }
}

TEST(Tokenizer, EncodesFromManyThreads) {
  const std::string text = read(kRoot / "tests/golden/fables_heldout.txt");
  const Ids expected = *big().encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) threads.emplace_back([&] { result = *big().encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

// Two ways to the same ids: a long word takes the heap, its pieces behind added tokens do not
// matter here; so the reference is the plain definition, on words around the length where the way
// changes.
TEST(Tokenizer, LongWordsFollowTheDefinition) {
  const json parsed = json::parse(big_json());
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (const json& merge : parsed["model"]["merges"])
    ranks.emplace(merge.get<std::pair<std::string, std::string>>(), ranks.size());
  uint64_t state = 9;
  for (size_t length = 40; length < 200; length += 3) {
    std::string word;
    while (word.size() < length) word += static_cast<char>('a' + next_random(state) % 8);
    std::vector<std::string> parts;
    for (const char c : word) parts.emplace_back(1, c);
    for (;;) {
      size_t best = 0, best_rank = SIZE_MAX;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto it = ranks.find({parts[i], parts[i + 1]});
        if (it != ranks.end() && it->second < best_rank) best = i, best_rank = it->second;
      }
      if (best_rank == SIZE_MAX) break;
      parts[best] += parts[best + 1];
      parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
    }
    Ids expected;
    for (const std::string& part : parts) expected.push_back(*big().token_to_id(part));
    EXPECT_EQ(*big().encode(word), expected) << word;
  }
}

// A quadratic step would take minutes here; the bound is wide for sanitizers and busy machines.
TEST(Tokenizer, HostileTextIsLinear) {
  constexpr size_t kBytes = 1'000'000;
  std::vector<std::string> texts;
  for (const std::string unit :
       {"a", " ", "\n", "0", "\u4eba", "!", "\U0001F600", "\x01", " \n", "a\u0301", "\r ",
        "<\uff5c", "\u180e", "\u3000", "<think>", "<\uff5cUser"}) {
    std::string& text = texts.emplace_back();
    while (text.size() < kBytes) text += unit;
  }
  const auto start = std::chrono::steady_clock::now();
  for (const Tokenizer* tokenizer : {&fables(), &big()}) {
    for (const std::string& text : texts) {
      const auto ids = tokenizer->encode(text);
      ASSERT_TRUE(ids.ok()) << ids.status().message();
      ASSERT_EQ(*tokenizer->decode(*ids, false), text);
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(TokenizerFile, RefusesMalformed) {
  EXPECT_EQ(refusal("").message(), "m/tokenizer.json: file must be JSON, got an error at byte 1");
  EXPECT_EQ(refusal("null").message(), "m/tokenizer.json: file must hold a JSON object, got null");
  EXPECT_EQ(refusal("{}").message(), "m/tokenizer.json: model must be an object, got null");
  EXPECT_EQ(refusal(R"({"a":1e999})").code(), Errc::kMalformed);
  EXPECT_EQ(refusal("{\"a\":\"\xFF\"}").code(), Errc::kMalformed);
  EXPECT_EQ(refusal(R"({"a":"\ud800"})").code(), Errc::kMalformed);
  for (const std::string open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 200000; ++i) deep += open;
    EXPECT_EQ(refusal(deep).code(), Errc::kMalformed);
    EXPECT_EQ(refusal("{\"a\":" + deep).message(),
              "m/tokenizer.json: JSON must be nested at most 32 deep, got more");
  }
  const auto message = [](const json& patch) { return refusal_of(patch).message(); };
  EXPECT_EQ(message({{"model", {{"vocab", {{"a", 4000000000u}}}}}}),
            "m/tokenizer.json: id of \"a\" must be an integer below 4194304, got 4000000000");
  for (const json& id :
       {json(-1), json(1.5), json("1"), json(nullptr), json(1e30), json::array()}) {
    json patched = fables_json();
    patched["model"]["vocab"]["a"] = id;
    EXPECT_EQ(refusal(patched.dump()).code(), Errc::kMalformed) << id;
  }
  EXPECT_EQ(
      message({{"model", {{"vocab", {{"a", 5}}}}}}),
      "m/tokenizer.json: ids in model.vocab must be distinct, got 5 a second time, for \"a\"");
  json empty = fables_json();
  empty["model"]["vocab"] = json::object();
  EXPECT_EQ(refusal(empty.dump()).message(),
            "m/tokenizer.json: model.vocab must be an object with at least one token, got {}");
  EXPECT_EQ(message({{"model", {{"merges", json::array({json::array({"a", "q\n\xC3\xA9"})})}}}}),
            "m/tokenizer.json: both tokens of a merge and their union must be in model.vocab, got "
            "merge 0 of \"a\" and \"q\\n\xC3\xA9\"");
  for (const json& merge : {json("ab"), json("a b c"), json({"a"}), json({"a", "b", "c"}), json(1),
                            json({1, 2}), json(nullptr)}) {
    EXPECT_EQ(refusal_of({{"model", {{"merges", json::array({merge})}}}}).code(), Errc::kMalformed)
        << merge;
  }
  EXPECT_EQ(refusal_of({{"model", {{"merges", {"h e", {"h", "e"}}}}}}).code(), Errc::kMalformed);
  json added = fables_json()["added_tokens"];
  added[3]["id"] = 3000;
  EXPECT_EQ(
      message({{"added_tokens", added}}),
      "m/tokenizer.json: id of the added token \"<\uff5cUser\uff5c>\" must be 2044, got 3000");
  json templated = {{"type", "TemplateProcessing"},
                    {"single", {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                    {"special_tokens", {{"x", {{"ids", json::array({5000})}}}}}};
  EXPECT_EQ(message({{"post_processor", templated}}),
            "m/tokenizer.json: ids of post_processor must be in the vocabulary, got 5000");
  added[3] = added[4];
  EXPECT_EQ(refusal_of({{"added_tokens", added}}).code(), Errc::kMalformed);
}

TEST(TokenizerFile, RefusesTheUnsupportedByName) {
  const auto expect = [](const json& patch, const std::string& part) {
    const auto status = refusal_of(patch);
    EXPECT_EQ(status.code(), Errc::kUnsupported) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  };
  expect({{"version", "2.0"}}, "version");
  expect({{"normalizer", {{"type", "NFC"}}}}, "NFC");
  expect({{"truncation", {{"max_length", 5}}}}, "truncation");
  expect({{"model", {{"type", "Unigram"}}}}, "Unigram");
  expect({{"model", {{"dropout", 0.5}}}}, "dropout");
  expect({{"model", {{"end_of_word_suffix", "</w>"}}}}, "end_of_word_suffix");
  expect({{"model", {{"unk_token", "a"}, {"vocab", {{"Q", nullptr}}}}}}, "0x51");
  expect({{"pre_tokenizer", {{"type", "Metaspace"}}}}, "Metaspace");
  expect({{"pre_tokenizer", nullptr}}, "ByteLevel");
  expect({{"post_processor", {{"type", "BertProcessing"}}}}, "BertProcessing");
  expect({{"decoder", {{"type", "Metaspace"}}}}, "Metaspace");
  expect({{"decoder", nullptr}}, "decoder");
  for (const char* regex : {R"(\h)",
                            R"(\b)",
                            R"(a&&[b&&c])",
                            R"([a[b]])",
                            R"((?<x>a))",
                            R"(\1)",
                            R"((?i)a)",
                            R"((*LIMIT_MATCH=9)a)",
                            R"(\p{Greek_Extended})",
                            R"(a{1,2}+)",
                            R"(a{3}?)",
                            R"(a**)",
                            R"([)",
                            R"(\)",
                            R"(a))",
                            R"((a)",
                            R"((?<=a+)b)",
                            R"((((a{900}){900}){900}))",
                            R"([[:alpha:]])",
                            R"(\x{d800})",
                            R"(\xff)",
                            R"((?i:ss))",
                            R"((?i:\p{Lu}))",
                            R"(\pL)",
                            R"([z-a])"}) {
    expect(split_by(regex), "regex");
  }
  expect(split_by(std::string(70000, 'a')), "regex must have at most 65536 bytes");
}

// None of these may take longer than the time limit of encode(), whatever its text.
TEST(TokenizerFile, HostileRegexEnds) {
  // The letters at the end are what PCRE2 looks for before it tries anything.
  const std::string text = std::string(200000, 'a') + std::string(200000, ' ') + "-bcx";
  for (const char* regex :
       {R"((a*)*b)", R"((a+a+)+b)", R"(a*a*a*a*a*b)", R"((?!.*b)c)", R"((?:a|a)*b)",
        R"(\s*\s*\s*x)", R"((?=(.*))b)", R"((a|aa)+$b)", R"(a(?=[^z]*z)q|c)"}) {
    json patched = fables_json();
    patched.merge_patch(split_by(regex));
    const auto tokenizer = Tokenizer::parse(patched.dump(), "", "m");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer->encode(text);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60)) << regex;
    EXPECT_TRUE(ids.ok() || ids.status().code() == Errc::kUnsupported) << regex;
  }
}

// Any mutation loads or is refused; what loads can encode and decode.
TEST(TokenizerFile, SurvivesMutations) {
  json small = fables_json();
  json merges = json::array(), vocab = json::object();
  for (size_t i = 0; i < 40; ++i) merges.push_back(small["model"]["merges"][i]);
  for (const auto& [token, id] : small["model"]["vocab"].items()) {
    if (id.get<int>() < 320) vocab[token] = id;
  }
  for (json& token : small["added_tokens"]) {
    if (token["id"].get<int>() > 2)
      token["id"] = token["id"].get<int>() - 2044 + static_cast<int>(vocab.size());
  }
  small["model"]["merges"] = merges;
  small["model"]["vocab"] = vocab;
  const std::string original = small.dump();
  ASSERT_TRUE(Tokenizer::parse(original, "", "m").ok())
      << Tokenizer::parse(original, "", "m").status().message();
  const std::string sample = "It was 1234 \u4eba\n\n  <think>x</think> \xF0\x9F\x98\x80!";
  uint64_t state = 10;
  int loaded = 0;
  for (FuzzRounds rounds(4000); rounds.next();) {
    const int i = rounds.done() - 1;
    std::string text = original;
    for (uint64_t n = 1 + next_random(state) % 4; n > 0; --n) {
      const size_t at = next_random(state) % text.size();
      // The first 2,200 bytes hold the steps, where a change means most.
      const size_t pos = next_random(state) % 2 ? at : at % 2200;
      const uint64_t kind = next_random(state) % 6;
      if (kind == 0) text[pos] = static_cast<char>(next_random(state));
      if (kind == 1) text[pos] = "0123456789{}[]\",:-.\\ntfe"[next_random(state) % 24];
      if (kind == 2) text.erase(pos, 1 + next_random(state) % 8);
      if (kind == 3) text.insert(pos, text.substr(next_random(state) % text.size(), 20));
      if (kind == 4) text.insert(pos, 1, "0123456789*+?(|)"[next_random(state) % 16]);
      if (kind == 5 && i % 50 == 0) text.resize(pos);
    }
    const auto tokenizer = Tokenizer::parse(text, "", "m");
    if (!tokenizer.ok()) continue;
    ++loaded;
    const auto ids = tokenizer->encode(sample);
    if (!ids.ok()) continue;
    ASSERT_TRUE(tokenizer->decode(*ids).ok());
  }
  EXPECT_GT(loaded, 100);
}

TEST(TokenizerFile, BigVocabulary) {
  EXPECT_EQ(big().vocab_size(), 128002u);
  const std::string text = read(kRoot / "tests/golden/fables_heldout.txt");
  const auto ids = big().encode(text + "<|eos|>");
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->back(), 128001u);
  EXPECT_LT(ids->size(), text.size() * 2 / 3);
  EXPECT_EQ(*big().decode(*ids), text);
}

// Against the definition: the encodings of all scalar values are right, and a sequence is wrong
// where it is none of them.
TEST(Tokenizer, Utf8IsCheckedAsUnicodeHasIt) {
  const auto encode = [](uint32_t c) {
    std::string text;
    const int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    text += char(more == 0 ? c : (0xF0u << (3 - more) & 0xFF) | c >> (6 * more));
    for (int k = more; k-- > 0;) text += char(0x80 | (c >> (6 * k) & 0x3F));
    return text;
  };
  for (uint32_t c = 0; c < 0x110000; c += c < 0x20000 ? 1 : 257) {
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    ASSERT_EQ(hadal::model::find_invalid_utf8("ab" + encode(c) + "c") != std::string::npos,
              surrogate)
        << c;
  }
  for (const char* wrong :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xE2(\xA1"}) {
    EXPECT_EQ(hadal::model::find_invalid_utf8(std::string("é") + wrong), 2u) << wrong;
  }
}

}  // namespace
