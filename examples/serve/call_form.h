// How a chat template writes calls of tools, and masks that hold an answer to calls in that form:
// OpenAI's tool_choice of "required" and of a function.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hadal/model/chat_template.h"
#include "hadal/model/tokenizer.h"
#include "hadal/runtime/json_grammar.h"
#include "serve/response_format.h"

namespace hadal::serve {

class CallForm {
 public:
  // Asks the template, by a conversation with two calls in it. `end_ids` end an answer. Errors:
  // kUnsupported for a template that writes none, or in a form that ToolCallSplitter does not read.
  [[nodiscard]] static Result<CallForm> create(const model::ChatTemplate& chat_template,
                                               const model::Tokenizer& tokenizer,
                                               std::span<const uint32_t> end_ids);

  // Messages as the template takes them: some want arguments as objects, not as OpenAI's text.
  [[nodiscard]] std::string messages(const std::string& json) const;

  // Allows one call of one of the tools, with arguments of its schema, or `many`; then the end.
  // Errors: those of JsonGrammar::compile, naming the tool. Thread-safe.
  [[nodiscard]] Result<MaskMaker> masks(const model::Tokenizer& tokenizer,
                                        const std::vector<CallableTool>& tools, bool many) const;

 private:
  CallForm() = default;
  [[nodiscard]] Status read(const std::string& rendered);

  bool arguments_are_objects_ = false;
  // OPENING name MIDDLE arguments (CALL_END BETWEEN name MIDDLE arguments)* CALL_END CLOSING
  std::string opening_, middle_, call_end_, between_, closing_;
  std::vector<uint32_t> end_ids_;
  std::shared_ptr<const runtime::GrammarVocabulary> vocabulary_;  // the call's end is its end
};

}  // namespace hadal::serve
