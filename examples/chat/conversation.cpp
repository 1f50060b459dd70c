#include "chat/conversation.h"

#include <fmt/format.h>

#include <cctype>
#include <utility>

#include "common/json.h"

namespace hadal::chat {
namespace {

using examples::Json, examples::Reasoning;

Json message(const char* role, const std::string& text) {
  Json json;
  json["role"] = role;
  json["content"] = text;
  return json;
}

bool has_role(const Json& message, std::string_view role) {
  return message["role"].get_ref<const std::string&>() == role;
}

bool is_space(char c) {
  return std::isspace(static_cast<unsigned char>(c)) != 0;
}

Status refuse(const std::string& field, const char* rule) {
  return {Errc::kMalformed, fmt::format("{}: {}", field, rule)};
}

// A list of text parts as one text, a line each, as hadal-serve reads them.
Status join_parts(const std::string& name, Json& content) {
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const bool is_text = part.is_object() && part.value("type", Json()) == "text" &&
                         part.value("text", Json()).is_string();
    if (!is_text) return refuse(fmt::format("{}[{}]", name, i), "must be a text part");
    if (i > 0) text += '\n';
    text += part["text"].get_ref<const std::string&>();
  }
  content = std::move(text);
  return {};
}

Status check_message(const std::string& name, Json& message) {
  if (!message.is_object()) return refuse(name, "must be an object");
  if (!message.value("role", Json()).is_string()) return refuse(name + ".role", "must be a string");
  const Json calls = message.value("tool_calls", Json());
  if (!calls.is_null() && !calls.is_array()) return refuse(name + ".tool_calls", "must be a list");
  Json& content = message["content"];
  if (content.is_array()) return join_parts(name + ".content", content);
  if (content.is_string() || (content.is_null() && calls.is_array())) return {};
  return refuse(name + ".content", "must be a string or a list of text parts");
}

}  // namespace

Conversation::Conversation(std::optional<model::ChatTemplate> chat_template)
    : template_(std::move(chat_template)) {
  if (!template_) return;
  const Json probe = Json::array({message("user", "?")});
  const auto reasons = [&](const Json& variables) {
    const Result<std::string> text = render(probe, variables);
    return text.ok() && examples::reasoning_behind(*text) == Reasoning::kOpen;
  };
  const Result<std::string> on = render(probe, variables(true)),
                            off = render(probe, variables(false));
  thinks_ = reasons(Json::object());
  if (on.ok() && off.ok() && *on != *off) {
    thinking_ = Thinking::kSwitched;
  } else if (thinks_) {
    thinking_ = Thinking::kAlways;
  }
}

Json Conversation::variables(bool thinks) const {
  return {{"thinking", thinks}, {"enable_thinking", thinks}};
}

Result<std::string> Conversation::render(const Json& messages, const Json& variables) const {
  model::ChatInput input;
  input.messages = messages.dump(), input.variables = variables.dump();
  return template_->render(input);
}

void Conversation::set_system(const std::string& text) {
  const bool there = !messages_.empty() && has_role(messages_[0], "system");
  if (there) messages_.erase(messages_.begin());
  if (!text.empty()) messages_.insert(messages_.begin(), message("system", text));
}

std::string Conversation::system() const {
  if (messages_.empty() || !has_role(messages_[0], "system")) return {};
  const Json& content = messages_[0]["content"];
  return content.is_string() ? content.get<std::string>() : std::string();
}

void Conversation::ask(const std::string& text) {
  messages_.push_back(message("user", text));
}

void Conversation::answer(const std::string& text, const std::string& reasoning) {
  Json said = message("assistant", text);
  if (!reasoning.empty()) said["reasoning_content"] = reasoning;
  messages_.push_back(std::move(said));
}

size_t Conversation::last_question() const {
  for (size_t i = messages_.size(); i-- > 0;) {
    if (has_role(messages_[i], "user")) return i;
  }
  return messages_.size();
}

bool Conversation::undo() {
  const size_t question = last_question();
  if (question == messages_.size()) return false;
  messages_.erase(messages_.begin() + ptrdiff_t(question), messages_.end());
  return true;
}

bool Conversation::take_answer_back() {
  const size_t question = last_question();
  if (question == messages_.size()) return false;
  messages_.erase(messages_.begin() + ptrdiff_t(question) + 1, messages_.end());
  return true;
}

void Conversation::reset() {
  const std::string kept = system();
  messages_ = Json::array();
  set_system(kept);
}

size_t Conversation::questions() const {
  size_t count = 0;
  for (const Json& said : messages_) count += has_role(said, "user");
  return count;
}

std::string Conversation::running_text() const {
  std::string text;
  for (const Json& said : messages_) {
    const auto& piece = said["content"].get_ref<const std::string&>();
    const bool joins = text.empty() || piece.empty() || has_role(said, "assistant") ||
                       is_space(text.back()) || is_space(piece.front());
    if (!joins) text += ' ';
    text += piece;
  }
  return text;
}

Result<Prompt> Conversation::prompt() const {
  if (!template_) return Prompt{running_text(), Reasoning::kNever, true};
  const Json asked = thinking_ == Thinking::kSwitched ? variables(thinks_) : Json::object();
  HADAL_ASSIGN(std::string text, render(messages_, asked));
  const Reasoning reasoning = examples::reasoning_behind(text);
  return Prompt{std::move(text), reasoning, false};
}

std::string Conversation::save() const {
  Json body;
  if (template_) {
    body["messages"] = messages_;
    if (thinking_ == Thinking::kSwitched) body["chat_template_kwargs"] = variables(thinks_);
  } else {
    body["prompt"] = running_text();
  }
  return body.dump(2) + "\n";
}

Status Conversation::load_messages(Json messages) {
  for (size_t i = 0; i < messages.size(); ++i) {
    HADAL_TRY(check_message(fmt::format("messages[{}]", i), messages[i]));
  }
  // What the template refuses should be refused now, not at the next question.
  HADAL_TRY(render(messages, Json::object()).status());
  messages_ = std::move(messages);
  return {};
}

Status Conversation::load(std::string_view text) {
  HADAL_ASSIGN(Json body, examples::parse_json(text));
  if (body.is_array()) body = Json{{"messages", std::move(body)}};
  if (!body.is_object()) return {Errc::kMalformed, "must be an object or a list of messages"};
  if (!template_) {
    if (!body.value("prompt", Json()).is_string()) {
      return refuse("prompt", "must be a string: the model has no chat template");
    }
    messages_ = Json::array({message("user", body["prompt"].get<std::string>())});
    return {};
  }
  if (!body.value("messages", Json()).is_array()) {
    return refuse("messages", "must be a list: the model has a chat template");
  }
  HADAL_TRY(load_messages(std::move(body["messages"])));
  const Json variables = body.value("chat_template_kwargs", Json::object());
  const Json thinks = variables.is_object() ? variables.value("thinking", Json()) : Json();
  if (thinking_ == Thinking::kSwitched && thinks.is_boolean()) thinks_ = thinks.get<bool>();
  return {};
}

}  // namespace hadal::chat
