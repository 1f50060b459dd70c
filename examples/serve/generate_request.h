// The bodies of /v1/completions and /v1/chat/completions: what a client may ask for. Pure: neither
// model nor tokenizer. Fields of OpenAI with their meaning, and those of vLLM that say more about
// sampling; unknown ones are ignored, ones of a wrong type or value are refused by name, and so are
// those that would change the answer and are not supported.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "hadal/runtime/sampling_options.h"
#include "serve/json.h"

namespace hadal::serve {

enum class AnswerKind { kCompletion, kChat };

struct ResponseFormat {
  enum class Type { kText, kJsonObject, kJsonSchema } type = Type::kText;
  std::string schema;  // JSON text, with kJsonSchema
};

// A tool that has to be called.
struct CallableTool {
  std::string name, schema;  // of its arguments, as JsonGrammar has it
  std::string field;         // that has the schema: for messages
};

using Prompt = std::variant<std::string, std::vector<uint32_t>>;

struct GenerateRequest {
  AnswerKind kind = AnswerKind::kCompletion;
  std::string model;            // empty: not said
  std::vector<Prompt> prompts;  // of completions
  bool echo = false;            // the prompt in front of the text
  bool add_special_tokens = true;
  // Of chats, as JSON texts (hadal/model/chat_template.h).
  std::string messages, tools, template_variables = "{}";
  bool add_generation_prompt = true;
  bool parallel_tool_calls = true;      // else one call at most
  std::vector<CallableTool> must_call;  // one of these; empty: as the model likes

  uint32_t n = 1;  // answers of each prompt
  std::optional<uint32_t> max_tokens;
  runtime::SamplingOptions sampling;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_token_ids;
  bool ignore_eos = false;
  std::optional<uint32_t> logprobs;  // of the token, and of that many of the most probable ones
  bool return_token_ids = false;
  bool stream = false, include_usage = false;
  ResponseFormat format;
};

// What is refused without a look at the model.
struct RequestLimits {
  uint32_t choices = 128;  // prompts times n
  uint32_t stop_strings = 16;
  uint32_t stop_string_bytes = 4096;
  uint32_t logit_biases = 1024;
  uint32_t callable_tools = 128;  // where one has to be called
  JsonLimits json;
};

// What holds where a request does not say: OpenAI's, unless the model has its own.
struct RequestDefaults {
  runtime::SamplingOptions sampling{.temperature = 1.0f, .logit_bias = {}};
  std::optional<uint32_t> max_tokens;  // none: 16 for completions, chats go on to the context's end
};

// `body`: bytes of a client, whatever they are.
[[nodiscard]] Outcome<GenerateRequest> parse_completion_request(
    std::string_view body, const RequestLimits& limits = {}, const RequestDefaults& defaults = {});
[[nodiscard]] Outcome<GenerateRequest> parse_chat_request(std::string_view body,
                                                          const RequestLimits& limits = {},
                                                          const RequestDefaults& defaults = {});

// The body of /tokenize: "prompt", or "messages" with what goes with them.
[[nodiscard]] Outcome<GenerateRequest> parse_tokenize_request(std::string_view body,
                                                              const RequestLimits& limits = {});
// The body of /detokenize: "tokens".
[[nodiscard]] Outcome<std::vector<uint32_t>> parse_detokenize_request(
    std::string_view body, const RequestLimits& limits = {});

}  // namespace hadal::serve
