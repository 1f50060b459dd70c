// What a server knows of its model, and requests made ready for the engine with it: tokens instead
// of text, one engine request per answer. Pure host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/reasoning.h"
#include "hadal/model/chat_template.h"
#include "hadal/model/tokenizer.h"
#include "hadal/runtime/engine.h"
#include "serve/call_form.h"
#include "serve/generate_request.h"
#include "serve/response_format.h"
#include "serve/tool_calls.h"

namespace hadal::serve {

// A request made ready. Answers are in the order of their index: those of the first prompt first.
struct Job {
  GenerateRequest asked;
  std::vector<runtime::EngineRequest> requests;                 // one for each answer
  std::vector<std::string> echoes;                              // of each prompt, with echo
  uint64_t prompt_tokens = 0;                                   // of each prompt once
  examples::Reasoning reasoning = examples::Reasoning::kNever;  // of the answers
};

class ServedModel {
 public:
  struct Options {
    std::string name;
    uint32_t context = 0;            // positions of a request
    uint32_t max_prompt_tokens = 0;  // at most the context; 0: the context
    uint32_t vocab = 0;
    std::vector<uint32_t> end_ids;  // that end an answer
    int64_t created = 0;            // seconds since 1970
  };
  ServedModel(model::Tokenizer tokenizer, std::optional<model::ChatTemplate> chat_template,
              Options options);

  [[nodiscard]] const Options& options() const { return options_; }
  [[nodiscard]] const model::Tokenizer& tokenizer() const { return tokenizer_; }
  [[nodiscard]] const examples::SpecialMarks& marks() const { return marks_; }
  [[nodiscard]] std::span<const SilentMark> silent_marks() const { return silent_marks_; }
  [[nodiscard]] bool has_chat_template() const { return chat_template_.has_value(); }

  // Thread-safe; takes time in proportion to the text. `random` is what seeds are made of where
  // the client gave none.
  [[nodiscard]] Outcome<Job> prepare(GenerateRequest request, uint64_t random) const;
  // The ids of a request's only prompt, or of its messages. Errors name the field.
  [[nodiscard]] Outcome<std::vector<uint32_t>> tokenize(const GenerateRequest& request) const;

 private:
  struct PromptTokens {
    std::vector<uint32_t> ids;
    examples::Reasoning reasoning = examples::Reasoning::kNever;
  };
  // Of the tokens that an answer may have, by response_format or tool_choice.
  [[nodiscard]] Outcome<MaskMaker> masks(const GenerateRequest& request, bool reasons) const;
  [[nodiscard]] std::optional<ApiError> check_name(const std::string& name) const;
  [[nodiscard]] Outcome<PromptTokens> render(const GenerateRequest& request) const;
  [[nodiscard]] Outcome<std::vector<uint32_t>> encode(const Prompt& prompt, const std::string& name,
                                                      bool add_special) const;
  [[nodiscard]] std::optional<ApiError> check_length(const std::vector<uint32_t>& ids,
                                                     const std::string& name) const;

  model::Tokenizer tokenizer_;
  std::optional<model::ChatTemplate> chat_template_;
  Options options_;
  ResponseFormats formats_;
  Result<CallForm> call_form_;  // or why calls cannot be demanded
  examples::SpecialMarks marks_;
  std::optional<uint32_t> end_of_reasoning_;  // "</think>" where it is one token
  std::vector<SilentMark> silent_marks_;
};

// Seed of a prompt's answer `index`: the given one for the first.
[[nodiscard]] uint64_t seed_of_answer(uint64_t seed, uint32_t index);

}  // namespace hadal::serve
