#include "hadal/model/chat_template.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "jinja/evaluator.h"
#include "jinja/parser.h"
#include "json_fields.h"

namespace hadal::model {

struct ChatTemplate::Impl {
  std::string name;
  jinja::Body usual;
  std::optional<jinja::Body> with_tools;
  std::string bos_token, eos_token;
};

namespace {

constexpr uintmax_t kMaxFileBytes = 1u << 20;

Result<std::string> read_text(const std::filesystem::path& path, uintmax_t most) {
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (!error && bytes > most) {
    return Status(Errc::kMalformed, fmt::format("{}: must have at most {} bytes, got {}",
                                                path.string(), most, bytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(error ? 0 : size_t(bytes), '\0');
  if (!error) file.read(text.data(), std::streamsize(text.size()));
  if (error || !file) return Status(Errc::kIo, path.string() + ": cannot be read");
  return text;
}

// A token is a string, or an object with its text in "content"; null or absent: none.
std::string token_text(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_object()) return "";
  const auto content = found->find("content");
  return content != found->end() && content->is_string() ? content->get<std::string>() : "";
}

Result<jinja::Body> parse_body(std::string_view source, const std::string& name) {
  try {
    return jinja::parse(source);
  } catch (const jinja::Error& error) {
    return Status(Errc::kMalformed, fmt::format("{}: {}", name, error.what()));
  }
}

// JSON of a kind, with the order of its fields kept.
Result<jinja::Value> parse_input(std::string_view text, const char* field, bool array) {
  const std::string name = fmt::format("chat: {}", field);
  const Result<Json> parsed = parse_json(text, name);  // checks depth and duplicate keys, too
  if (!parsed.ok()) return Status(Errc::kInvalidArgument, parsed.status().message());
  const Json& checked = *parsed;
  if (array ? !checked.is_array() : !checked.is_object()) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("{} must be {}, got {}", name, array ? "an array" : "an object",
                              checked.type_name()));
  }
  try {
    return jinja::Value::from_json(nlohmann::ordered_json::parse(text));
  } catch (const std::exception& error) {
    return Status(Errc::kInvalidArgument, fmt::format("{}: {}", name, error.what()));
  }
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, const std::string& name,
                                         std::string bos_token, std::string eos_token) {
  auto impl = std::make_shared<Impl>();
  impl->name = name;
  impl->bos_token = std::move(bos_token), impl->eos_token = std::move(eos_token);
  HADAL_ASSIGN(impl->usual, parse_body(source, name));
  return ChatTemplate(std::move(impl));
}

Result<ChatTemplate> ChatTemplate::load(const std::filesystem::path& model_dir) {
  const std::filesystem::path config_path = model_dir / "tokenizer_config.json",
                              jinja_path = model_dir / "chat_template.jinja";
  Json config = Json::object();
  std::error_code error;
  if (std::filesystem::exists(config_path, error)) {
    HADAL_ASSIGN(const std::string text, read_text(config_path, uintmax_t{64} << 20));
    HADAL_ASSIGN(config, parse_json(text, config_path.string()));
    if (!config.is_object()) {
      return Status(Errc::kMalformed, config_path.string() + ": file must hold a JSON object");
    }
  }
  std::string bos = token_text(config, "bos_token"), eos = token_text(config, "eos_token");
  if (std::filesystem::exists(jinja_path, error)) {
    HADAL_ASSIGN(const std::string text, read_text(jinja_path, kMaxFileBytes));
    return parse(text, jinja_path.string(), std::move(bos), std::move(eos));
  }
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) {
    return Status(Errc::kUnsupported, model_dir.string() +
                                          ": the checkpoint has no chat template (no "
                                          "chat_template.jinja, none in tokenizer_config.json)");
  }
  const std::string name = config_path.string() + ": chat_template";
  if (found->is_string()) {
    return parse(found->get<std::string>(), name, std::move(bos), std::move(eos));
  }
  auto impl = std::make_shared<Impl>();
  impl->name = name, impl->bos_token = std::move(bos), impl->eos_token = std::move(eos);
  bool usual = false;
  for (const Json& entry : found->is_array() ? *found : Json::array()) {
    const bool named = entry.is_object() && entry.value("name", Json()).is_string() &&
                       entry.value("template", Json()).is_string();
    if (!named) return Status(Errc::kMalformed, name + " must hold objects of name and template");
    const std::string which = entry["name"], text = entry["template"];
    if (which == "default") {
      HADAL_ASSIGN(impl->usual, parse_body(text, name + " 'default'"));
      usual = true;
    } else if (which == "tool_use") {
      HADAL_ASSIGN(impl->with_tools, parse_body(text, name + " 'tool_use'"));
    }
  }
  if (!usual) return Status(Errc::kMalformed, name + " must be a text or have one named 'default'");
  return ChatTemplate(std::move(impl));
}

Result<std::string> ChatTemplate::render(const ChatInput& input) const {
  HADAL_ASSIGN(jinja::Value messages, parse_input(input.messages, "messages", true));
  HADAL_ASSIGN(const jinja::Value others, parse_input(input.variables, "variables", false));
  for (const jinja::Value& message : *messages.list()) {
    if (message.dict()) continue;
    return Status(Errc::kInvalidArgument, "chat: messages must be objects");
  }
  jinja::Dict variables{{"messages", std::move(messages)},
                        {"add_generation_prompt", input.add_generation_prompt},
                        {"bos_token", impl_->bos_token},
                        {"eos_token", impl_->eos_token},
                        {"tools", jinja::None{}}};
  if (!input.tools.empty()) {
    HADAL_ASSIGN(variables.back().second, parse_input(input.tools, "tools", true));
  }
  const bool tools = variables.back().second.truthy() && impl_->with_tools;
  for (const auto& field : *others.dict()) variables.push_back(field);
  try {
    return jinja::render(tools ? *impl_->with_tools : impl_->usual, variables);
  } catch (const jinja::Error& error) {
    return Status(Errc::kInvalidArgument, fmt::format("{}: {}", impl_->name, error.what()));
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory, impl_->name + ": no memory for the text");
  }
}

}  // namespace hadal::model
