// The chat template of a checkpoint: messages to the text that the model continues. Templates are
// Jinja; what is understood is the language as Hugging Face's templates use it, rendered as
// transformers does (trim_blocks, lstrip_blocks, loopcontrols; tojson without escapes for HTML):
//
//   statements   if, for (with if, else, break, continue, loop.*), set (names, tuples, namespace
//                fields, blocks), macro, raw, generation
//   expressions  all operators of jinja2, slices, dicts and lists, calls by position and name
//   filters      those of jinja2 that make sense without HTML: default, join, tojson, map, ...
//   tests        defined, none, string, mapping, iterable, ...
//   functions    namespace, dict, range, raise_exception, strftime_now, and Python's methods of
//                strings, dicts and lists that templates call
//
// Not understood and refused by name: include, import, extends, call, filter blocks, recursive
// loops, *args. Upper and lower case are ASCII's. Rendering is bounded in steps, depth and bytes,
// so that a hostile template ends with an error.
//
// Source: jinja.palletsprojects.com (templates), transformers' utils/chat_template_utils.py.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "hadal/status.h"

namespace hadal::model {

// What a template is rendered with. JSON texts, because messages carry whatever a template reads:
// role, content, tool_calls, name, reasoning_content ...
struct ChatInput {
  std::string messages = "[]";  // an array of objects
  std::string tools;            // an array; empty: none
  bool add_generation_prompt = true;
  // Variables besides, as chat_template_kwargs of other servers: an object. V3.1's thinking switch
  // is {"thinking": true}.
  std::string variables = "{}";
};

class ChatTemplate {
 public:
  // DIR/chat_template.jinja, else "chat_template" of DIR/tokenizer_config.json: a text, or a list
  // of {name, template} of which "tool_use" serves inputs with tools and "default" all others.
  // bos_token and eos_token come from tokenizer_config.json. At most 1 MiB each. Errors:
  // kUnsupported when the checkpoint has no template; kMalformed naming file and line; kIo.
  [[nodiscard]] static Result<ChatTemplate> load(const std::filesystem::path& model_dir);
  // A template's text. Errors start with "NAME: line N: ".
  [[nodiscard]] static Result<ChatTemplate> parse(std::string_view source, const std::string& name,
                                                  std::string bos_token = "",
                                                  std::string eos_token = "");

  // Errors: kInvalidArgument for input that is not JSON of the form above, and for what the
  // template refuses (raise_exception, a field that is missing), with the template's line.
  // Thread-safe. Encode the text with add_special = false: templates write bos_token themselves.
  [[nodiscard]] Result<std::string> render(const ChatInput& input) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace hadal::model
