// What a tokenizer.json and its tokenizer_config.json say, checked. Private to the tokenizer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "added_tokens.h"
#include "hadal/status.h"
#include "pre_tokenizer.h"

namespace hadal::model::detail {

// Ids are indices of tables, so a file cannot be allowed to name any 32-bit number. The largest
// vocabularies have 262,144 tokens.
inline constexpr uint32_t kMaxVocab = 1u << 22;

// Of either file. The parsed form takes up to about twenty times the text; published files have up
// to 35 MB.
inline constexpr size_t kMaxJsonBytes = 64u << 20;

struct TokenizerSpec {
  std::vector<std::pair<std::string, uint32_t>> vocab;      // distinct contents and ids
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
  bool ignore_merges = false;    // a word that is a token as it stands is not built by merging
  bool needs_all_bytes = false;  // says how to encode an unknown character: fine if there is none
  std::vector<AddedToken> added_tokens;
  PreTokenizerSpec pre_tokenizer;
  std::vector<uint32_t> prefix, suffix;  // special tokens of the post-processor's template
  std::optional<std::string> bos_token, eos_token;
  bool add_bos_token = false, add_eos_token = false;
};

// `name` (the model's folder) starts every message. Either text may be hostile; `config_json` may
// be empty. Errors: kMalformed, kUnsupported (a feature, by name).
[[nodiscard]] Result<TokenizerSpec> parse_tokenizer_json(std::string_view tokenizer_json,
                                                         std::string_view config_json,
                                                         const std::string& name);

}  // namespace hadal::model::detail
