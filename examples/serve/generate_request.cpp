#include "serve/generate_request.h"

#include <fmt/format.h>

#include <charconv>

#include "hadal/top_logprobs.h"
#include "serve/chat_fields.h"

namespace hadal::serve {
namespace {

// A list of token ids; `key` names it in messages.
std::vector<uint32_t> read_ids(Fields& fields, const std::string& key, const Json& list) {
  std::vector<uint32_t> ids;
  ids.reserve(list.size());
  for (const Json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      fields.refuse(fmt::format("{}[{}]", key, ids.size()), "must be a token id", id);
      return {};
    }
    ids.push_back(id.get<uint32_t>());
  }
  return ids;
}

void read_prompt(Fields& fields, GenerateRequest& request) {
  const Json* prompt = fields.find("prompt");
  if (!fields.ok()) return;
  const char* rule = "must be a string, a list of strings, a list of token ids or a list of those";
  if (prompt == nullptr) return fields.refuse("prompt", rule, Json());
  if (prompt->is_string()) {
    request.prompts.emplace_back(prompt->get<std::string>());
    return;
  }
  if (!prompt->is_array()) return fields.refuse("prompt", rule, *prompt);
  if (prompt->empty()) return fields.refuse("prompt", "must have at least one element", *prompt);
  if (prompt->front().is_number()) {
    request.prompts.emplace_back(read_ids(fields, "prompt", *prompt));
    return;
  }
  for (const Json& one : *prompt) {
    const std::string key = fmt::format("prompt[{}]", request.prompts.size());
    if (one.is_string() && prompt->front().is_string()) {
      request.prompts.emplace_back(one.get<std::string>());
    } else if (one.is_array() && prompt->front().is_array()) {
      request.prompts.emplace_back(read_ids(fields, key, one));
    } else {
      return fields.refuse(key, "must be a string or a list of token ids, as all are", one);
    }
  }
}

void read_stop(Fields& fields, const RequestLimits& limits, GenerateRequest& request) {
  const auto add = [&](const std::string& key, const Json& text) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty()) {
      return fields.refuse(key, "must be a string of at least one character", text);
    }
    if (text.get_ref<const std::string&>().size() > limits.stop_string_bytes) {
      return fields.refuse(key, fmt::format("must have at most {} bytes", limits.stop_string_bytes),
                           text);
    }
    request.stop.push_back(text.get<std::string>());
  };
  if (const Json* stop = fields.find("stop"); stop != nullptr && stop->is_array()) {
    if (stop->size() > limits.stop_strings) {
      fields.refuse("stop", fmt::format("must have at most {} strings", limits.stop_strings),
                    Json(stop->size()));
    }
    for (size_t i = 0; i < stop->size() && fields.ok(); ++i) {
      add(fmt::format("stop[{}]", i), (*stop)[i]);
    }
  } else if (stop != nullptr) {
    add("stop", *stop);
  }
  if (const Json* ids = fields.find("stop_token_ids")) {
    if (!ids->is_array()) return fields.refuse("stop_token_ids", "must be a list", *ids);
    request.stop_token_ids = read_ids(fields, "stop_token_ids", *ids);
  }
}

void read_logit_bias(Fields& fields, const RequestLimits& limits, GenerateRequest& request) {
  const Json* biases = fields.find("logit_bias");
  if (biases == nullptr) return;
  if (!biases->is_object()) {
    return fields.refuse("logit_bias", "must be an object of token ids to numbers", *biases);
  }
  if (biases->size() > limits.logit_biases) {
    return fields.refuse("logit_bias", fmt::format("must have at most {}", limits.logit_biases),
                         Json(biases->size()));
  }
  for (const auto& [key, value] : biases->items()) {
    runtime::LogitBias bias;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), bias.id);
    // One way to write an id, so that none comes twice.
    if (error != std::errc() || end != key.data() + key.size() || fmt::to_string(bias.id) != key) {
      return fields.refuse("logit_bias", "must have token ids for keys", Json(key));
    }
    if (!value.is_number() || !(value.get<double>() >= -100 && value.get<double>() <= 100)) {
      return fields.refuse(fmt::format("logit_bias.{}", bias.id),
                           "must be a number from -100 to 100", value);
    }
    bias.value = value.get<float>();
    request.sampling.logit_bias.push_back(bias);
  }
}

void read_sampling(Fields& fields, const RequestLimits& limits, GenerateRequest& request) {
  runtime::SamplingOptions& s = request.sampling;
  fields.number("temperature", 0, 2, s.temperature);
  fields.number("top_p", 0, 1, s.top_p);
  if (s.top_p <= 0) fields.refuse("top_p", "must be above 0", Json(0));
  fields.number("min_p", 0, 1, s.min_p);
  int64_t top_k = s.top_k;
  fields.integer("top_k", -1, UINT32_MAX, top_k);  // vLLM: -1 is off
  s.top_k = uint32_t(std::max<int64_t>(top_k, 0));
  fields.number("presence_penalty", -2, 2, s.presence_penalty);
  fields.number("frequency_penalty", -2, 2, s.frequency_penalty);
  fields.number("repetition_penalty", 0.01, 100, s.repetition_penalty);
  if (fields.find("seed") != nullptr) {
    int64_t seed = 0;
    fields.integer("seed", INT64_MIN, INT64_MAX, seed);
    request.seed = uint64_t(seed);
  }
  read_logit_bias(fields, limits, request);
  read_stop(fields, limits, request);
  fields.boolean("ignore_eos", request.ignore_eos);
}

void read_max_tokens(Fields& fields, const char* key, GenerateRequest& request) {
  if (fields.find(key) == nullptr) return;
  uint32_t most = 0;
  fields.integer(key, 1, UINT32_MAX, most);
  request.max_tokens = most;
}

void read_response_format(Fields& fields, GenerateRequest& request) {
  const Json* format = fields.find("response_format");
  if (format == nullptr) return;
  Fields inner(*format, "response_format.");
  std::string type;
  inner.string("type", type);
  if (inner.ok() && type == "json_schema") {
    request.format.type = ResponseFormat::Type::kJsonSchema;
    const Json* holder = inner.find("json_schema");
    const Json none;
    Fields named(holder != nullptr ? *holder : none, "response_format.json_schema.");
    const Json* schema = named.find("schema");
    if (named.ok() && (schema == nullptr || !(schema->is_object() || schema->is_boolean()))) {
      named.refuse("schema", "must be a JSON Schema", schema != nullptr ? *schema : Json());
    }
    if (!named.ok()) return fields.fail(named.error());
    request.format.schema = dump(*schema);
  } else if (inner.ok() && type == "json_object") {
    request.format.type = ResponseFormat::Type::kJsonObject;
  } else if (inner.ok() && type != "text") {
    inner.refuse("type", "must be text, json_object or json_schema", Json(type));
  }
  if (!inner.ok()) fields.fail(inner.error());
}

// What both kinds have.
void read_common(Fields& fields, const RequestLimits& limits, GenerateRequest& request) {
  fields.string("model", request.model);
  fields.integer("n", 1, limits.choices, request.n);
  read_sampling(fields, limits, request);
  read_max_tokens(fields, "max_tokens", request);
  read_response_format(fields, request);
  fields.boolean("return_token_ids", request.return_token_ids);
  fields.boolean("stream", request.stream);
  if (const Json* options = fields.find("stream_options")) {
    Fields inner(*options, "stream_options.");
    inner.boolean("include_usage", request.include_usage);
    if (!inner.ok()) return fields.fail(inner.error());
    if (!request.stream) fields.refuse("stream_options", "must come with stream: true", *options);
  }
}

void read_completion(Fields& fields, const RequestLimits& limits, GenerateRequest& request) {
  read_common(fields, limits, request);
  read_prompt(fields, request);
  fields.boolean("add_special_tokens", request.add_special_tokens);
  fields.boolean("echo", request.echo);
  if (fields.find("logprobs") != nullptr) {
    request.logprobs = 0;
    fields.integer("logprobs", 0, kMaxTopLogprobs, *request.logprobs);
  }
  if (request.echo && request.logprobs) {
    fields.refuse("echo", "must be false with logprobs, which prompts have none of", Json(true));
  }
  const Json* suffix = fields.find("suffix");
  if (suffix != nullptr && *suffix != "") {
    fields.refuse("suffix", "must not be set: not supported", *suffix);
  }
  uint32_t best_of = request.n;
  fields.integer("best_of", 1, UINT32_MAX, best_of);
  if (best_of != request.n) {
    fields.refuse("best_of", "must be n: choosing among more is not supported", Json(best_of));
  }
  if (fields.ok() && request.prompts.size() * request.n > limits.choices) {
    fields.refuse("prompt", fmt::format("must give at most {} answers in all", limits.choices),
                  Json(request.prompts.size() * request.n));
  }
}

void read_chat(Fields& fields, const RequestLimits& limits, GenerateRequest& request) {
  read_common(fields, limits, request);
  read_messages(fields, request);
  read_tools(fields, limits, request);
  read_max_tokens(fields, "max_completion_tokens", request);  // the newer name wins
  bool logprobs = false;
  fields.boolean("logprobs", logprobs);
  if (logprobs) request.logprobs = 0;
  if (const Json* top = fields.find("top_logprobs")) {
    if (!logprobs) return fields.refuse("top_logprobs", "must come with logprobs: true", *top);
    fields.integer("top_logprobs", 0, kMaxTopLogprobs, *request.logprobs);
  }
}

// The object of a body, read by `read`.
template <class Read>
Outcome<GenerateRequest> parse(std::string_view body, const RequestLimits& limits,
                               const RequestDefaults& defaults, AnswerKind kind, Read&& read) {
  Outcome<Json> json = parse_body(body, limits.json);
  if (!json.ok()) return std::move(json.error());
  Fields fields(*json);
  GenerateRequest request;
  request.kind = kind;
  request.sampling = defaults.sampling, request.max_tokens = defaults.max_tokens;
  if (fields.ok()) read(fields, limits, request);
  if (!fields.ok()) return fields.error();
  return request;
}

}  // namespace

Outcome<GenerateRequest> parse_completion_request(std::string_view body,
                                                  const RequestLimits& limits,
                                                  const RequestDefaults& defaults) {
  return parse(body, limits, defaults, AnswerKind::kCompletion, read_completion);
}

Outcome<GenerateRequest> parse_chat_request(std::string_view body, const RequestLimits& limits,
                                            const RequestDefaults& defaults) {
  return parse(body, limits, defaults, AnswerKind::kChat, read_chat);
}

Outcome<GenerateRequest> parse_tokenize_request(std::string_view body,
                                                const RequestLimits& limits) {
  const auto read = [](Fields& fields, const RequestLimits& most, GenerateRequest& request) {
    fields.string("model", request.model);
    if (fields.find("messages") != nullptr) {
      request.kind = AnswerKind::kChat;
      read_messages(fields, request);
      return read_tools(fields, most, request);
    }
    fields.boolean("add_special_tokens", request.add_special_tokens);
    std::string prompt;
    fields.string("prompt", prompt);
    if (fields.ok() && fields.find("prompt") == nullptr) {
      fields.refuse("prompt", "must be a string, or messages must be there", Json());
    }
    request.prompts.emplace_back(std::move(prompt));
  };
  return parse(body, limits, {}, AnswerKind::kCompletion, read);
}

Outcome<std::vector<uint32_t>> parse_detokenize_request(std::string_view body,
                                                        const RequestLimits& limits) {
  Outcome<Json> json = parse_body(body, limits.json);
  if (!json.ok()) return std::move(json.error());
  Fields fields(*json);
  const Json* tokens = fields.find("tokens");
  std::vector<uint32_t> ids;
  if (tokens != nullptr && tokens->is_array()) {
    ids = read_ids(fields, "tokens", *tokens);
  } else if (fields.ok()) {
    fields.refuse("tokens", "must be a list of token ids", tokens != nullptr ? *tokens : Json());
  }
  if (!fields.ok()) return fields.error();
  return ids;
}

}  // namespace hadal::serve
