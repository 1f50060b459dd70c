// What was said, and the prompt that it makes for the model: by the checkpoint's chat template, or,
// where there is none, as one running text. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/json.h"
#include "common/reasoning.h"
#include "hadal/model/chat_template.h"
#include "hadal/status.h"

namespace hadal::chat {

// What a template has to say about reasoning before the answer.
enum class Thinking {
  kNever,
  kSwitched,  // by its variable `thinking` (V3.1) or `enable_thinking`
  kAlways,    // R1
};

struct Prompt {
  std::string text;
  examples::Reasoning reasoning = examples::Reasoning::kNever;  // of what follows
  bool add_special = false;  // the tokenizer puts its tokens around the text
};

class Conversation {
 public:
  explicit Conversation(std::optional<model::ChatTemplate> chat_template);

  [[nodiscard]] bool has_template() const { return template_.has_value(); }
  [[nodiscard]] Thinking thinking() const { return thinking_; }
  // Whether the model thinks, where that is switched.
  [[nodiscard]] bool thinks() const { return thinks_; }
  void set_thinks(bool thinks) { thinks_ = thinks; }

  // The first message, if it is a system's; an empty text removes it. Other messages stay.
  void set_system(const std::string& text);
  [[nodiscard]] std::string system() const;
  void ask(const std::string& text);
  // What the model said to the last question. Reasoning goes along as reasoning_content, of which
  // the template takes what it wants.
  void answer(const std::string& text, const std::string& reasoning);
  // Takes what was said from the last question on back. False when there is none.
  bool undo();
  // The same but for the question, to be answered again.
  bool take_answer_back();
  // All but the first system message.
  void reset();
  [[nodiscard]] size_t questions() const;

  // Without a template the texts in their order, with a space between where two have none.
  // Errors: those of the template.
  [[nodiscard]] Result<Prompt> prompt() const;

  // A body for POST /v1/chat/completions, or without a template for /v1/completions.
  [[nodiscard]] std::string save() const;
  // From such a body, other fields of which are left out, or a list of messages. After an error
  // everything is as it was. Errors: kMalformed naming the field; those of the template.
  [[nodiscard]] Status load(std::string_view json);

 private:
  using Json = examples::Json;
  [[nodiscard]] Json variables(bool thinks) const;
  [[nodiscard]] Result<std::string> render(const Json& messages, const Json& variables) const;
  [[nodiscard]] std::string running_text() const;
  [[nodiscard]] Status load_messages(Json messages);
  // Index of the last question; messages_.size() if there is none.
  [[nodiscard]] size_t last_question() const;

  std::optional<model::ChatTemplate> template_;
  Thinking thinking_ = Thinking::kNever;
  bool thinks_ = false;
  Json messages_ = Json::array();
};

}  // namespace hadal::chat
