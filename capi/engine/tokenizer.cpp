// The text side of a checkpoint, without a device.
#include <algorithm>
#include <cstring>

#include "engine.h"
#include "hadal/version.h"

using namespace hadal;        // NOLINT: entry points of the C ABI
using namespace hadal::capi;  // NOLINT

namespace hadal::capi {
namespace {
constexpr const char* kTokenizer = "tokenizer";
}  // namespace

Result<std::unique_ptr<hadal_tokenizer>> load_tokenizer(const char* model_dir) {
  HADAL_ASSIGN(model::Tokenizer tokenizer, model::Tokenizer::load(model_dir));
  return std::make_unique<hadal_tokenizer>(
      hadal_tokenizer{std::move(tokenizer), model::ChatTemplate::load(model_dir)});
}

}  // namespace hadal::capi

uint32_t hadal_engine_version(void) {
  return VK_MAKE_API_VERSION(0, HADAL_VERSION_MAJOR, HADAL_VERSION_MINOR, HADAL_VERSION_PATCH);
}

hadal_status hadal_tokenizer_load(const char* model_dir, hadal_tokenizer** tokenizer,
                                  hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!model_dir) return invalid(kTokenizer, "model_dir must not be null");
    if (!tokenizer) return invalid(kTokenizer, "tokenizer must not be null");
    HADAL_ASSIGN(auto made, load_tokenizer(model_dir));
    *tokenizer = made.release();
    return {};
  });
}

void hadal_tokenizer_destroy(hadal_tokenizer* tokenizer) {
  delete tokenizer;
}

hadal_status hadal_tokenizer_describe(const hadal_tokenizer* tokenizer,
                                      hadal_tokenizer_facts* facts, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!tokenizer) return invalid(kTokenizer, "tokenizer must not be null");
    const model::Tokenizer& t = tokenizer->tokenizer;
    const hadal_tokenizer_facts known{sizeof(known), t.vocab_size(),
                                      t.bos_id().value_or(HADAL_NO_TOKEN),
                                      t.eos_id().value_or(HADAL_NO_TOKEN), tokenizer->chat.ok()};
    return write_struct(kTokenizer, "facts", known, facts);
  });
}

hadal_status hadal_tokenizer_encode(const hadal_tokenizer* tokenizer, const char* text,
                                    size_t bytes, hadal_text_flags flags, size_t* count,
                                    uint32_t* ids, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!tokenizer) return invalid(kTokenizer, "tokenizer must not be null");
    if (!text && bytes) return invalid(kTokenizer, "text must not be null");
    HADAL_TRY(check_flags(kTokenizer, flags, HADAL_TEXT_PLAIN));
    const std::string_view whole(text ? text : "", bytes);
    HADAL_ASSIGN(const auto encoded,
                 tokenizer->tokenizer.encode(whole, !(flags & HADAL_TEXT_PLAIN)));
    return fill(kTokenizer, encoded.data(), encoded.size(), count, ids);
  });
}

hadal_status hadal_tokenizer_decode(const hadal_tokenizer* tokenizer, const uint32_t* ids,
                                    size_t ids_count, hadal_text_flags flags, size_t* count,
                                    char* text, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!tokenizer) return invalid(kTokenizer, "tokenizer must not be null");
    if (!ids && ids_count) return invalid(kTokenizer, "ids must not be null");
    HADAL_TRY(check_flags(kTokenizer, flags, HADAL_TEXT_PLAIN));
    HADAL_ASSIGN(const std::string decoded,
                 tokenizer->tokenizer.decode({ids, ids_count}, !(flags & HADAL_TEXT_PLAIN)));
    return fill(kTokenizer, decoded.data(), decoded.size(), count, text);
  });
}

hadal_status hadal_tokenizer_id(const hadal_tokenizer* tokenizer, const char* token, uint32_t* id,
                                hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!tokenizer) return invalid(kTokenizer, "tokenizer must not be null");
    if (!token) return invalid(kTokenizer, "token must not be null");
    if (!id) return invalid(kTokenizer, "id must not be null");
    const auto found = tokenizer->tokenizer.token_to_id(token);
    if (!found) {
      const std::string_view start = std::string_view(token).substr(0, 100);
      return invalid(kTokenizer, fmt::format("token must be in the vocabulary, got '{}'", start));
    }
    *id = *found;
    return {};
  });
}

hadal_status hadal_tokenizer_chat(const hadal_tokenizer* tokenizer, const hadal_chat* chat,
                                  size_t* count, char* text, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!tokenizer) return invalid(kTokenizer, "tokenizer must not be null");
    hadal_chat known{};
    HADAL_TRY(read_struct(kTokenizer, "chat", chat, known));
    HADAL_TRY(check_flags(kTokenizer, known.flags, HADAL_CHAT_NO_GENERATION_PROMPT));
    if (!known.messages) return invalid(kTokenizer, "chat.messages must not be null");
    if (!tokenizer->chat.ok()) {
      return {Errc::kUnsupported, tokenizer->chat.status().message()};
    }
    model::ChatInput input;
    input.messages = known.messages;
    if (known.tools) input.tools = known.tools;
    if (known.variables) input.variables = known.variables;
    input.add_generation_prompt = !(known.flags & HADAL_CHAT_NO_GENERATION_PROMPT);
    HADAL_ASSIGN(const std::string rendered, tokenizer->chat->render(input));
    return fill(kTokenizer, rendered.data(), rendered.size(), count, text);
  });
}
