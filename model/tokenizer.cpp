// See hadal/model/tokenizer.h. From a checked file to ids and back; the parts are in added_tokens,
// pre_tokenizer, bpe and byte_level.
#include "hadal/model/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <functional>
#include <new>
#include <unordered_map>

#include "added_tokens.h"
#include "bpe.h"
#include "byte_level.h"
#include "pre_tokenizer.h"
#include "tokenizer_json.h"

namespace hadal::model {

using detail::Bpe;
using detail::TokenizerSpec;

namespace {

constexpr size_t kMaxTextBytes = (size_t{1} << 31) - 1;  // positions are 32-bit
constexpr size_t kMaxCachedWord = 64;                    // longer words do not come back
constexpr size_t kMaxCacheSlots = 1 << 14;

// Words of one text whose ids are known: a direct-mapped table that points into the text and into
// the ids already written, so it allocates once and needs no lock.
class WordCache {
 public:
  WordCache(std::string_view text, const std::vector<uint32_t>& ids)
      : text_(text),
        ids_(ids),
        slots_(std::bit_ceil(std::clamp<size_t>(text.size() / 8, 1, kMaxCacheSlots))) {}

  struct Slot {
    uint32_t word_begin = 0, word_bytes = 0;
    uint32_t ids_begin = 0, ids_count = 0;
  };
  Slot& slot(std::string_view word) {
    return slots_[std::hash<std::string_view>()(word) & (slots_.size() - 1)];
  }
  [[nodiscard]] bool holds(const Slot& slot, std::string_view word) const {
    return text_.substr(slot.word_begin, slot.word_bytes) == word;
  }
  void fill(Slot& slot, std::string_view word, size_t ids_begin) const {
    slot = {static_cast<uint32_t>(word.data() - text_.data()), static_cast<uint32_t>(word.size()),
            static_cast<uint32_t>(ids_begin), static_cast<uint32_t>(ids_.size() - ids_begin)};
  }

 private:
  std::string_view text_;
  const std::vector<uint32_t>& ids_;
  std::vector<Slot> slots_;
};

Result<std::string> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return Status(Errc::kIo, fmt::format("{}: {}", path.string(), error.message()));
  if (size > detail::kMaxJsonBytes) {
    return Status(Errc::kMalformed, fmt::format("{}: file must have at most {} bytes, got {}",
                                                path.string(), detail::kMaxJsonBytes, size));
  }
  std::string text(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file) return Status(Errc::kIo, fmt::format("{}: cannot be read", path.string()));
  return text;
}

}  // namespace

struct Tokenizer::Impl {
  // One per id; `used` is false for ids that the file does not define.
  struct Token {
    std::string content;  // as the file has it
    std::string bytes;    // what it decodes to
    bool used = false;
    bool special = false;
    bool added = false;
  };

  std::string file;
  std::vector<Token> tokens;
  std::unordered_map<std::string_view, uint32_t> ids;  // keys live in tokens[].content
  std::unordered_map<std::string_view, uint32_t>
      ids_of_bytes;  // for ignore_merges; in tokens[].bytes
  Bpe bpe;
  detail::AddedTokens added;
  detail::PreTokenizer pre_tokenizer;
  std::vector<uint32_t> prefix, suffix;  // what add_special puts around the ids
  std::optional<uint32_t> bos, eos;
  bool adds_bos = false;

  [[nodiscard]] Status malformed(std::string_view rule, std::string_view got) const {
    return {Errc::kMalformed, fmt::format("{}: {}, got {}", file, rule, got)};
  }
  void set_token(uint32_t id, const std::string& content);
  Status build(const TokenizerSpec& spec);
  Status build_vocab(const TokenizerSpec& spec);
  Status build_bpe(const TokenizerSpec& spec);
  Status build_added(const TokenizerSpec& spec);
  Status build_special(const TokenizerSpec& spec);
  [[nodiscard]] std::optional<uint32_t> find(std::string_view token) const;
  [[nodiscard]] Result<const Token*> token_at(uint32_t id) const;
  Status encode(std::string_view text, std::vector<uint32_t>& out) const;
};

std::optional<uint32_t> Tokenizer::Impl::find(std::string_view token) const {
  const auto it = ids.find(token);
  if (it == ids.end()) return std::nullopt;
  return it->second;
}

Result<const Tokenizer::Impl::Token*> Tokenizer::Impl::token_at(uint32_t id) const {
  if (id >= tokens.size() || !tokens[id].used) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("tokenizer: id must be in the vocabulary of {}, got {}", tokens.size(), id));
  }
  return &tokens[id];
}

// A token with a character outside the byte-level alphabet decodes to itself.
void Tokenizer::Impl::set_token(uint32_t id, const std::string& content) {
  tokens[id] = {content, detail::token_to_bytes(content).value_or(content), true, false, false};
}

Status Tokenizer::Impl::build(const TokenizerSpec& spec) {
  HADAL_TRY(build_vocab(spec));
  HADAL_TRY(build_bpe(spec));
  HADAL_TRY(build_added(spec));
  HADAL_TRY(build_special(spec));
  HADAL_ASSIGN(pre_tokenizer, detail::PreTokenizer::create(spec.pre_tokenizer, file));
  return {};
}

// The table has its final size before the first key points into it.
Status Tokenizer::Impl::build_vocab(const TokenizerSpec& spec) {
  uint32_t largest = 0;
  for (const auto& [content, id] : spec.vocab) largest = std::max(largest, id);
  for (const detail::AddedToken& token : spec.added_tokens) largest = std::max(largest, token.id);
  tokens.resize(size_t{largest} + 1);
  ids.reserve(spec.vocab.size() + spec.added_tokens.size());
  for (const auto& [content, id] : spec.vocab) {
    set_token(id, content);
    ids.emplace(tokens[id].content, id);
  }
  if (!spec.ignore_merges) return {};
  for (const auto& [content, id] : spec.vocab) {
    if (detail::token_to_bytes(content)) ids_of_bytes.emplace(tokens[id].bytes, id);
  }
  return {};
}

Status Tokenizer::Impl::build_bpe(const TokenizerSpec& spec) {
  bpe = Bpe(spec.merges.size());
  for (int byte = 0; byte < 256; ++byte) {
    std::string content;
    detail::append_utf8(detail::byte_to_char(static_cast<uint8_t>(byte)), content);
    if (const auto id = find(content)) {
      bpe.set_byte_token(static_cast<uint8_t>(byte), *id);
    } else if (spec.needs_all_bytes) {
      return {Errc::kUnsupported,
              fmt::format("{}: model.vocab must hold all 256 bytes where there is "
                          "an unk_token or byte_fallback, got none for {:#04x}",
                          file, byte)};
    }
  }
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    const auto left_id = find(left), right_id = find(right), id = find(left + right);
    if (!left_id || !right_id || !id) {
      return malformed(
          "both tokens of a merge and their union must be in model.vocab",
          fmt::format("merge {} of {:?} and {:?}", rank, left.substr(0, 40), right.substr(0, 40)));
    }
    bpe.add_merge(*left_id, *right_id, {static_cast<uint32_t>(rank), *id});
  }
  return {};
}

// The library numbers added tokens itself and only warns where the file has another id. A file
// whose two numberings differ has no meaning that both its readers agree on, so it is refused.
Status Tokenizer::Impl::build_added(const TokenizerSpec& spec) {
  uint32_t next = static_cast<uint32_t>(spec.vocab.size());
  std::unordered_map<std::string_view, const detail::AddedToken*> seen;
  for (const detail::AddedToken& token : spec.added_tokens) {
    const auto [it, inserted] = seen.emplace(token.content, &token);
    if (!inserted) {
      return malformed("added tokens must be distinct", fmt::format("{:?} twice", token.content));
    }
    const auto known = find(token.content);
    const uint32_t expected = known.value_or(next);
    if (token.id != expected) {
      return malformed(
          fmt::format("id of the added token {:?} must be {}", token.content, expected),
          std::to_string(token.id));
    }
    if (!known) {
      if (tokens[token.id].used) {
        return malformed("ids of added tokens must be free in model.vocab",
                         std::to_string(token.id));
      }
      set_token(token.id, token.content);
      ids.emplace(tokens[token.id].content, token.id);
    }
    next = std::max(next, token.id + 1);
    tokens[token.id].special = token.special, tokens[token.id].added = true;
    added.add(token);
  }
  return {};
}

Status Tokenizer::Impl::build_special(const TokenizerSpec& spec) {
  for (const std::vector<uint32_t>* list : {&spec.prefix, &spec.suffix}) {
    for (const uint32_t id : *list) {
      if (!token_at(id).ok()) {
        return malformed("ids of post_processor must be in the vocabulary", std::to_string(id));
      }
    }
  }
  prefix = spec.prefix;
  suffix = spec.suffix;
  if (spec.bos_token) bos = find(*spec.bos_token);
  if (spec.eos_token) eos = find(*spec.eos_token);
  if ((spec.add_bos_token && !bos) || (spec.add_eos_token && !eos)) {
    return malformed(
        "a bos_token or eos_token that is to be added must be in the vocabulary",
        fmt::format("{:?}",
                    (spec.add_bos_token && !bos ? spec.bos_token : spec.eos_token).value_or("")));
  }
  // The template and the flags are two ways to say the same; both together do not mean two tokens.
  if (spec.add_bos_token && prefix.empty()) prefix.push_back(*bos);
  if (spec.add_eos_token && suffix.empty()) suffix.push_back(*eos);
  adds_bos = bos && !prefix.empty() && prefix.front() == *bos;
  return {};
}

Status Tokenizer::Impl::encode(std::string_view text, std::vector<uint32_t>& out) const {
  const auto scratch = pre_tokenizer.make_scratch(text.size());
  WordCache cache(text, out);
  const auto encode_word = [&](std::string_view word, bool stable) {
    if (!ids_of_bytes.empty()) {
      if (const auto it = ids_of_bytes.find(word); it != ids_of_bytes.end()) {
        out.push_back(it->second);
        return;
      }
    }
    if (!stable || word.size() > kMaxCachedWord) {
      bpe.encode(word, out);
      return;
    }
    WordCache::Slot& slot = cache.slot(word);
    const size_t begin = out.size();
    if (cache.holds(slot, word)) {
      out.resize(begin + slot.ids_count);
      std::copy_n(out.begin() + slot.ids_begin, slot.ids_count,
                  out.begin() + static_cast<ptrdiff_t>(begin));
    } else {
      bpe.encode(word, out);
      cache.fill(slot, word, begin);
    }
  };
  const std::function<void(std::string_view, bool)> emit = encode_word;
  for (const detail::Segment& segment : added.split(text)) {
    if (segment.id == detail::Segment::kText) {
      HADAL_TRY(pre_tokenizer.run(segment.text, *scratch, emit));
    } else {
      out.push_back(segment.id);
    }
  }
  return {};
}

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& model_dir) {
  try {
    HADAL_ASSIGN(const std::string json, read_file(model_dir / "tokenizer.json"));
    std::string config;
    const auto config_path = model_dir / "tokenizer_config.json";
    std::error_code error;
    if (std::filesystem::exists(config_path, error)) {
      HADAL_ASSIGN(config, read_file(config_path));
      if (config.empty()) config.assign(1, '\n');  // an empty file is not a missing one
    }
    return parse(json, config, model_dir.string());
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory, model_dir.string() + ": no memory for the tokenizer");
  }
}

Result<Tokenizer> Tokenizer::parse(std::string_view tokenizer_json,
                                   std::string_view tokenizer_config_json,
                                   const std::string& name) {
  try {
    HADAL_ASSIGN(const TokenizerSpec spec,
                 detail::parse_tokenizer_json(tokenizer_json, tokenizer_config_json, name));
    const auto impl = std::make_shared<Impl>();
    impl->file = name + "/tokenizer.json";
    HADAL_TRY(impl->build(spec));
    return Tokenizer(std::shared_ptr<const Impl>(impl));
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory, name + ": no memory for the tokenizer");
  }
}

Result<std::vector<uint32_t>> Tokenizer::encode(std::string_view text, bool add_special) const {
  if (text.size() > kMaxTextBytes) {
    return Status(Errc::kInvalidArgument, fmt::format("tokenizer: text must have at most {} bytes, "
                                                      "got {}",
                                                      kMaxTextBytes, text.size()));
  }
  const size_t invalid = find_invalid_utf8(text);
  if (invalid != std::string_view::npos) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("tokenizer: text must be UTF-8, got byte {:#04x} at offset {}",
                              static_cast<uint8_t>(text[invalid]), invalid));
  }
  try {
    std::vector<uint32_t> ids;
    if (add_special) ids = impl_->prefix;
    HADAL_TRY(impl_->encode(text, ids));
    if (add_special) ids.insert(ids.end(), impl_->suffix.begin(), impl_->suffix.end());
    return ids;
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory,
                  fmt::format("tokenizer: no memory to encode {} bytes", text.size()));
  }
}

Result<std::string> Tokenizer::decode(std::span<const uint32_t> ids, bool skip_special) const {
  try {
    std::string bytes, text;
    for (const uint32_t id : ids) {
      HADAL_ASSIGN(const Impl::Token* token, impl_->token_at(id));
      if (!skip_special || !token->special) bytes += token->bytes;
    }
    text.reserve(bytes.size());
    detail::append_lossy(bytes, false, text);
    return text;
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory,
                  fmt::format("tokenizer: no memory to decode {} ids", ids.size()));
  }
}

uint32_t Tokenizer::vocab_size() const {
  return static_cast<uint32_t>(impl_->tokens.size());
}
std::optional<uint32_t> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->find(token);
}
std::optional<std::string> Tokenizer::id_to_token(uint32_t id) const {
  const auto token = impl_->token_at(id);
  if (!token.ok()) return std::nullopt;
  return (*token)->content;
}
std::optional<std::string> Tokenizer::plain_bytes(uint32_t id) const {
  const auto token = impl_->token_at(id);
  if (!token.ok() || (*token)->added || (*token)->special) return std::nullopt;
  return (*token)->bytes;
}
std::optional<uint32_t> Tokenizer::bos_id() const {
  return impl_->bos;
}
std::optional<uint32_t> Tokenizer::eos_id() const {
  return impl_->eos;
}
bool Tokenizer::adds_bos() const {
  return impl_->adds_bos;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : impl_(tokenizer.impl_), skip_special_(skip_special) {}

Result<std::string> StreamDecoder::push(uint32_t id) {
  HADAL_ASSIGN(const Tokenizer::Impl::Token* token, impl_->token_at(id));
  std::string text;
  if (skip_special_ && token->special) return text;
  pending_ += token->bytes;
  pending_.erase(0, detail::append_lossy(pending_, true, text));
  return text;
}

std::string StreamDecoder::flush() {
  std::string text;
  detail::append_lossy(pending_, false, text);
  pending_.clear();
  return text;
}

}  // namespace hadal::model
