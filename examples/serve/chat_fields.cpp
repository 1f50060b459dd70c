#include "serve/chat_fields.h"

#include <fmt/format.h>

#include "serve/tool_calls.h"

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

// A tool's name and schema.
CallableTool read_callable(Fields& fields, const std::string& key, const Json& tool) {
  const Json none = Json::object();
  const auto function = tool.find("function");
  Fields inner(function != tool.end() ? *function : none, key + ".function.");
  CallableTool callable;
  callable.field = key + ".function.parameters";
  callable.schema = R"({"type":"object","properties":{}})";  // OpenAI's meaning of none
  inner.string("name", callable.name);
  if (inner.ok() && !is_call_name(callable.name)) {
    inner.refuse("name", "must be 1 to 256 bytes without control characters and <",
                 Json(callable.name));
  }
  if (const Json* schema = inner.find("parameters")) {
    if (!schema->is_object()) inner.refuse("parameters", "must be a JSON Schema", *schema);
    callable.schema = schema->empty() ? "" : dump(*schema);
  }
  if (!inner.ok()) fields.fail(inner.error());
  return callable;
}

void read_must_call(Fields& fields, const RequestLimits& limits, const Json& choice,
                    const Json& tools, GenerateRequest& request) {
  std::string name;  // empty: any
  if (choice.is_object()) {
    Fields outer(choice, "tool_choice.");
    std::string type = "function";
    outer.string("type", type);
    if (outer.ok() && type != "function") {
      outer.refuse("type", "must be function", Json(type));
    }
    const Json* function = outer.find("function");
    const Json none;
    Fields inner(function != nullptr ? *function : none, "tool_choice.function.");
    inner.string("name", name);
    if (inner.ok() && name.empty()) inner.refuse("name", "must be a tool's name", Json(name));
    if (!outer.ok()) return fields.fail(outer.error());
    if (!inner.ok()) return fields.fail(inner.error());
  } else if (choice != "required") {
    return fields.refuse("tool_choice", "must be auto, none, required or a function", choice);
  }
  if (tools.size() > limits.callable_tools) {
    return fields.refuse(
        "tools",
        fmt::format("must have at most {} where one has to be called", limits.callable_tools),
        Json(tools.size()));
  }
  for (size_t i = 0; i < tools.size() && fields.ok(); ++i) {
    CallableTool tool = read_callable(fields, fmt::format("tools[{}]", i), tools[i]);
    if (name.empty() || tool.name == name) request.must_call.push_back(std::move(tool));
  }
  if (request.must_call.empty() && fields.ok()) {
    fields.refuse("tool_choice", "must be auto or none, or of a tool in tools", choice);
  }
  if (choice.is_object()) request.parallel_tool_calls = false;
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

void read_tools(Fields& fields, const RequestLimits& limits, GenerateRequest& request) {
  const Json* tools = fields.find("tools");
  if (tools != nullptr && !tools->is_array()) {
    return fields.refuse("tools", "must be a list", *tools);
  }
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    if (!(*tools)[i].is_object()) {
      return fields.refuse(fmt::format("tools[{}]", i), "must be an object", (*tools)[i]);
    }
  }
  fields.boolean("parallel_tool_calls", request.parallel_tool_calls);
  const Json* choice = fields.find("tool_choice");
  const bool none = choice != nullptr && *choice == "none";
  if (tools != nullptr && !tools->empty() && !none) request.tools = dump(*tools);
  if (choice == nullptr || none || *choice == "auto") return;
  read_must_call(fields, limits, *choice, tools != nullptr ? *tools : Json::array(), request);
}

}  // namespace hadal::serve
