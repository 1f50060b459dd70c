// A tokenizer.json of any size, the same on every machine: merges of random pairs, chosen so that
// the tokens look like pieces of words. For limits and speed, where no real vocabulary may be
// shipped.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

namespace hadal::test {

struct BigTokenizerOptions {
  uint32_t vocab_size = 128000;
  uint64_t seed = 1;
  // Bytes whose frequencies the first merges follow; the rest are random.
  std::string text = {};
};

namespace big_tokenizer_detail {

// SplitMix64: the standard library's distributions differ between implementations.
inline uint64_t next_random(uint64_t& state) {
  uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

// GPT-2's character for a byte, in UTF-8; written again here so that a wrong table in the library
// cannot agree with itself.
inline std::string byte_char(int byte) {
  int code = byte;
  if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
    code = 256;
    for (int b = 0; b < byte; ++b) {
      if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)) ++code;
    }
  }
  if (code < 128) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

// A JSON string of text without control characters.
inline std::string quote(const std::string& text) {
  std::string out(1, '"');
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  out += '"';
  return out;
}

}  // namespace big_tokenizer_detail

// DeepSeek-V3's three expressions, its byte level, two special tokens at the end of the vocabulary.
inline std::string big_tokenizer_json(const BigTokenizerOptions& options) {
  namespace d = big_tokenizer_detail;
  uint64_t state = options.seed;
  std::vector<std::string> tokens;
  std::unordered_set<std::string> known;
  std::string vocab, merges;
  const auto add = [&](const std::string& token) {
    if (!known.insert(token).second) return false;
    vocab += (tokens.empty() ? "" : ",") + d::quote(token) + ":" + std::to_string(tokens.size());
    tokens.push_back(token);
    return true;
  };
  for (int byte = 0; byte < 256; ++byte) add(d::byte_char(byte));
  const auto pick = [&]() -> const std::string& {
    const uint64_t r = d::next_random(state);
    const double u = static_cast<double>(r >> 11) * 0x1p-53;
    if (!options.text.empty() && r % 8 < 5) {  // a byte of the text
      return tokens[static_cast<uint8_t>(
          options.text[static_cast<size_t>(u * static_cast<double>(options.text.size()))])];
    }
    // An earlier token, earlier ones more often.
    return tokens[static_cast<size_t>(u * u * static_cast<double>(tokens.size()))];
  };
  while (tokens.size() < options.vocab_size) {
    const std::string left = pick(), right = pick();
    if (left.size() + right.size() > 24 || !add(left + right)) continue;
    merges += (merges.empty() ? "[" : ",[") + d::quote(left) + "," + d::quote(right) + "]";
  }
  const std::string size = std::to_string(tokens.size());
  const std::string size1 = std::to_string(tokens.size() + 1);
  const auto special = [](const std::string& id, const std::string& content) {
    return R"({"id":)" + id + R"(,"content":")" + content +
           R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,)"
           R"("special":true})";
  };
  const auto split = [](const std::string& regex) {
    return R"({"type":"Split","pattern":{"Regex":)" + d::quote(regex) +
           R"(},"behavior":"Isolated","invert":false},)";
  };
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)" +
         special(size, "<|bos|>") + "," + special(size1, "<|eos|>") +
         R"(],"normalizer":{"type":"Sequence","normalizers":[]},)" +
         R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)" + split(R"(\p{N}{1,3})") +
         split("[一-龥\u3040-ゟ゠-ヿ]+") +
         split(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?)"
               R"([\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)") +
         R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)" +
         R"("use_regex":false}]},)" +
         R"("post_processor":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,)" +
         R"("use_regex":true},"decoder":{"type":"ByteLevel","add_prefix_space":true,)" +
         R"("trim_offsets":true,"use_regex":true},"model":{"type":"BPE","dropout":null,)" +
         R"("unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,)" +
         R"("fuse_unk":false,"byte_fallback":false,"vocab":{)" + vocab + R"(},"merges":[)" +
         merges + "]}}";
}

}  // namespace hadal::test
