#include "hadal/runtime/json_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "masks.h"
#include "schema_compiler.h"

namespace hadal::runtime {
namespace {

using Tokens = std::vector<std::pair<std::string, uint32_t>>;

std::unique_ptr<const GrammarVocabulary::Impl> sorted_out(std::vector<std::string> token_bytes,
                                                          std::span<const uint32_t> end_ids) {
  auto impl = std::make_unique<GrammarVocabulary::Impl>();
  impl->end_ids.assign(end_ids.begin(), end_ids.end());
  Tokens quoting, control, plain;
  for (uint32_t id = 0; id < token_bytes.size(); ++id) {
    const std::string& bytes = token_bytes[id];
    if (bytes.empty() || impl->is_end(id)) continue;
    const auto is_control = [](char c) { return uint8_t(c) < 0x20; };
    Tokens& list = bytes.find_first_of("\"\\") != std::string::npos      ? quoting
                   : std::any_of(bytes.begin(), bytes.end(), is_control) ? control
                                                                         : plain;
    list.emplace_back(bytes, id);
  }
  impl->quoting = grammar::TokenTrie(std::move(quoting));
  impl->control = grammar::TokenTrie(std::move(control));
  impl->plain = grammar::TokenTrie(std::move(plain));
  impl->token_bytes = std::move(token_bytes);
  return impl;
}

Status no_memory() {
  return {Errc::kOutOfHostMemory, "json_grammar: no memory"};
}

}  // namespace

GrammarVocabulary::GrammarVocabulary(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
GrammarVocabulary::~GrammarVocabulary() = default;

Result<std::shared_ptr<const GrammarVocabulary>> GrammarVocabulary::create(
    const model::Tokenizer& tokenizer, std::span<const uint32_t> end_ids) {
  try {
    std::vector<std::string> token_bytes(tokenizer.vocab_size());
    for (uint32_t id = 0; id < token_bytes.size(); ++id) {
      token_bytes[id] = tokenizer.plain_bytes(id).value_or("");
    }
    const std::optional<uint32_t> eos = tokenizer.eos_id();
    if (end_ids.empty() && eos) return create(std::move(token_bytes), std::span(&*eos, 1));
    return create(std::move(token_bytes), end_ids);
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

Result<std::shared_ptr<const GrammarVocabulary>> GrammarVocabulary::create(
    std::vector<std::string> token_bytes, std::span<const uint32_t> end_ids) {
  if (end_ids.empty()) {
    return Status(Errc::kInvalidArgument,
                  "json_grammar: end_ids must have a token that ends a document, got none");
  }
  for (const uint32_t id : end_ids) {
    if (id >= token_bytes.size()) {
      return Status(Errc::kInvalidArgument,
                    fmt::format("json_grammar: end_ids must be below the vocabulary's {}, got {}",
                                token_bytes.size(), id));
    }
  }
  try {
    return std::make_shared<const GrammarVocabulary>(sorted_out(std::move(token_bytes), end_ids));
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

JsonGrammar::JsonGrammar(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Result<std::shared_ptr<const JsonGrammar>> JsonGrammar::compile(
    std::string_view schema, std::shared_ptr<const GrammarVocabulary> vocabulary,
    const JsonGrammarOptions& options) {
  if (vocabulary == nullptr) {
    return Status(Errc::kInvalidArgument, "json_grammar: vocabulary must be there, got none");
  }
  try {
    constexpr uint32_t kMostWhitespace = 1 << 16;
    HADAL_ASSIGN(
        grammar::Nodes nodes,
        grammar::compile_schema(schema, std::min(options.max_whitespace, kMostWhitespace)));
    auto impl = std::make_shared<Impl>();
    impl->vocabulary = std::move(vocabulary), impl->nodes = std::move(nodes);
    return std::make_shared<const JsonGrammar>(std::shared_ptr<const Impl>(std::move(impl)));
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

Result<std::shared_ptr<const JsonGrammar>> JsonGrammar::compile(std::string_view schema,
                                                                const model::Tokenizer& tokenizer,
                                                                std::span<const uint32_t> end_ids,
                                                                const JsonGrammarOptions& options) {
  HADAL_ASSIGN(auto vocabulary, GrammarVocabulary::create(tokenizer, end_ids));
  return compile(schema, std::move(vocabulary), options);
}

TokenMask JsonGrammar::mask() const {
  auto masks = std::make_shared<grammar::RequestMasks>(impl_);
  return [masks](std::span<const uint32_t> generated, std::span<uint32_t> allowed) {
    masks->fill(generated, allowed);
    return true;
  };
}

}  // namespace hadal::runtime
