// Byte-level BPE tokenizer read from a Hugging Face tokenizer.json: the same ids as the
// `tokenizers` library on any UTF-8 text. No id is hard-coded. Characters that Unicode assigned
// later than the tables of the PCRE2 in use (14 in PCRE2 10.42) may be split otherwise. Source:
// github.com/huggingface/tokenizers (added_vocabulary.rs, byte_level.rs, models/bpe).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/status.h"

namespace hadal::model {

// Offset of the first byte that is not part of a whole character of UTF-8 (RFC 3629: shortest form,
// no surrogates, at most U+10FFFF), or npos.
[[nodiscard]] size_t find_invalid_utf8(std::string_view text);

class Tokenizer {
 public:
  // Reads DIR/tokenizer.json (required) and DIR/tokenizer_config.json (bos/eos names,
  // add_bos_token, add_eos_token; optional), at most 64 MiB each. parse() takes their texts (an
  // empty config: none) and the folder's name for messages, which start "NAME/tokenizer.json: ".
  // Errors: kIo, kMalformed, kUnsupported (a pre-tokenizer, model, decoder or regex that is not
  // implemented, named in the message), kOutOfHostMemory.
  [[nodiscard]] static Result<Tokenizer> load(const std::filesystem::path& model_dir);
  [[nodiscard]] static Result<Tokenizer> parse(std::string_view tokenizer_json,
                                               std::string_view tokenizer_config_json,
                                               const std::string& name);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Text to ids. Added tokens that stand in the text become their ids. `add_special` also puts the
  // tokens of the post-processor's template, or else of add_bos_token and add_eos_token, around
  // them. Errors: kInvalidArgument (not UTF-8: the offset; 2^31 bytes or more), kUnsupported (a
  // regex of the file runs out of its limits), kOutOfHostMemory. Thread-safe.
  [[nodiscard]] Result<std::vector<uint32_t>> encode(std::string_view text,
                                                     bool add_special = true) const;

  // Ids to text; special tokens are left out when `skip_special`. Byte sequences that are not UTF-8
  // become U+FFFD as the library's decoder has it. An id outside the vocabulary is an error.
  [[nodiscard]] Result<std::string> decode(std::span<const uint32_t> ids,
                                           bool skip_special = true) const;

  [[nodiscard]] uint32_t vocab_size() const;  // largest id + 1, added tokens included
  [[nodiscard]] std::optional<uint32_t> token_to_id(std::string_view token) const;
  [[nodiscard]] std::optional<std::string> id_to_token(uint32_t id) const;
  // The bytes that an ordinary token stands for, perhaps parts of characters; none for added
  // tokens, special or not, and for ids outside the vocabulary.
  [[nodiscard]] std::optional<std::string> plain_bytes(uint32_t id) const;
  [[nodiscard]] std::optional<uint32_t> bos_id() const;
  [[nodiscard]] std::optional<uint32_t> eos_id() const;
  [[nodiscard]] bool adds_bos() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

// Incremental decoding for streaming: push() returns the text that is complete so far and never
// half a character; flush() returns what is left (U+FFFD for an unfinished character). The
// concatenation of all returns equals Tokenizer::decode of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  [[nodiscard]] Result<std::string> push(uint32_t id);
  [[nodiscard]] std::string flush();

 private:
  std::shared_ptr<const Tokenizer::Impl> impl_;
  bool skip_special_;
  std::string pending_;  // bytes of a character that has not ended yet
};

}  // namespace hadal::model
