#include "serve/chat_fields.h"

#include <fmt/format.h>

namespace hadal::serve {
namespace {

// A list of text parts as one text, a line each.
void join_parts(Fields& fields, const std::string& key, Json& content) {
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string name = fmt::format("{}[{}]", key, i);
    if (!part.is_object()) return fields.refuse(name, "must be an object", part);
    const auto type = part.find("type");
    if (type == part.end() || *type != "text") {
      return fields.refuse(name + ".type", "must be text: the model reads nothing else",
                           type == part.end() ? Json() : *type);
    }
    const auto piece = part.find("text");
    if (piece == part.end() || !piece->is_string()) {
      return fields.refuse(name + ".text", "must be a string",
                           piece == part.end() ? Json() : *piece);
    }
    if (i > 0) text += '\n';
    text += piece->get_ref<const std::string&>();
  }
  content = std::move(text);
}

void check_message(Fields& fields, const std::string& key, Json& message) {
  if (!message.is_object()) return fields.refuse(key, "must be an object", message);
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) {
    return fields.refuse(key + ".role", "must be a string", role == message.end() ? Json() : *role);
  }
  const auto calls = message.find("tool_calls");
  const bool has_calls = calls != message.end() && !calls->is_null();
  if (has_calls && !calls->is_array()) {
    return fields.refuse(key + ".tool_calls", "must be a list", *calls);
  }
  const bool calls_something = has_calls && !calls->empty();
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (!has_calls) return fields.refuse(key + ".content", "must be there", Json());
    message["content"] = nullptr;  // templates ask for it
  } else if (content->is_array()) {
    join_parts(fields, key + ".content", *content);
  } else if (!content->is_string()) {
    return fields.refuse(key + ".content", "must be a string or a list of text parts", *content);
  }
  // V3's templates write calls where there is no content; clients join streams to an empty one.
  if (calls_something && message["content"] == "") message["content"] = nullptr;
}

}  // namespace

void read_messages(Fields& fields, GenerateRequest& request) {
  const Json* found = fields.find("messages");
  if (!fields.ok()) return;
  if (found == nullptr || !found->is_array() || found->empty()) {
    return fields.refuse("messages", "must be a list of at least one message",
                         found != nullptr ? *found : Json());
  }
  Json messages = *found;
  for (size_t i = 0; i < messages.size() && fields.ok(); ++i) {
    check_message(fields, fmt::format("messages[{}]", i), messages[i]);
  }
  request.messages = dump(messages);
  fields.boolean("add_generation_prompt", request.add_generation_prompt);
  if (const Json* variables = fields.find("chat_template_kwargs")) {
    if (!variables->is_object()) {
      return fields.refuse("chat_template_kwargs", "must be an object", *variables);
    }
    request.template_variables = dump(*variables);
  }
}

void read_tools(Fields& fields, GenerateRequest& request) {
  const Json* tools = fields.find("tools");
  if (tools != nullptr && !tools->is_array()) {
    return fields.refuse("tools", "must be a list", *tools);
  }
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    if (!(*tools)[i].is_object()) {
      return fields.refuse(fmt::format("tools[{}]", i), "must be an object", (*tools)[i]);
    }
  }
  const Json* choice = fields.find("tool_choice");
  if (choice != nullptr && *choice != "auto" && *choice != "none") {
    return fields.refuse("tool_choice", "must be auto or none: calls cannot be forced", *choice);
  }
  const bool none = choice != nullptr && *choice == "none";
  if (tools != nullptr && !tools->empty() && !none) request.tools = dump(*tools);
  fields.boolean("parallel_tool_calls", request.parallel_tool_calls);
}

}  // namespace hadal::serve
