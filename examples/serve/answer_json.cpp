#include "serve/answer_json.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal::serve {
namespace {

// OpenAI's number for the logarithm of 0, for which JSON has none.
constexpr float kLeastLogprob = -9999.0f;

const char* finish_word(const Answer& answer) {
  if (answer.finish() != runtime::FinishReason::kStop) return "length";
  return answer.calls_tools() ? "tool_calls" : "stop";
}

Json usage_json(const Usage& usage) {
  Json json;
  json["prompt_tokens"] = usage.prompt_tokens;
  json["completion_tokens"] = usage.completion_tokens;
  json["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  if (usage.reasons) {
    json["completion_tokens_details"]["reasoning_tokens"] = usage.reasoning_tokens;
  }
  return json;
}

// What a token adds to a text; of an added one its name.
std::string token_bytes(const model::Tokenizer& tokenizer, uint32_t id) {
  if (auto bytes = tokenizer.plain_bytes(id)) return *bytes;
  return tokenizer.id_to_token(id).value_or("");
}

bool is_text(std::string_view bytes) {
  try {
    (void)Json(bytes).dump();  // strict about UTF-8
    return true;
  } catch (const Json::type_error&) {
    return false;
  }
}

size_t characters(std::string_view text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace

void append_event(std::string& out, std::string_view json) {
  out += "data: ";
  out += json;
  out += "\n\n";
}

AnswerWriter::AnswerWriter(const ServedModel& model, const GenerateRequest& asked, std::string id,
                           int64_t created)
    : model_(&model),
      kind_(asked.kind),
      logprobs_(asked.logprobs.has_value()),
      ids_(asked.return_token_ids),
      usage_in_events_(asked.include_usage),
      id_(std::move(id)),
      created_(created) {
  event_head_ =
      dump(head(kind_ == AnswerKind::kChat ? "chat.completion.chunk" : "text_completion"));
  event_head_.pop_back();  // the brace
  event_head_ += ",\"choices\":[{\"index\":";
}

Json AnswerWriter::head(const char* object) const {
  Json json;
  json["id"] = id_, json["object"] = object, json["created"] = created_;
  json["model"] = model_->options().name;
  return json;
}

std::string AnswerWriter::token_text(uint32_t id) const {
  const std::string bytes = token_bytes(model_->tokenizer(), id);
  if (is_text(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

Json AnswerWriter::token_json(uint32_t id, float logprob) const {
  Json json;
  json["token"] = token_text(id);
  json["logprob"] = std::max(logprob, kLeastLogprob);
  json["bytes"] = Json::array();
  for (const char c : token_bytes(model_->tokenizer(), id)) {
    json["bytes"].push_back(static_cast<unsigned char>(c));
  }
  return json;
}

Json AnswerWriter::chat_logprobs(const AnswerDelta& delta) const {
  Json content = Json::array();
  for (const TokenWithLogprobs& token : delta.logprobs) {
    Json json = token_json(token.id, token.logprobs.chosen);
    json["top_logprobs"] = Json::array();
    for (const runtime::TokenLogprob& top : token.logprobs.top) {
      json["top_logprobs"].push_back(token_json(top.id, top.logprob));
    }
    content.push_back(std::move(json));
  }
  return {{"content", std::move(content)}};
}

Json AnswerWriter::completion_logprobs(const AnswerDelta& delta) const {
  Json tokens = Json::array(), values = Json::array(), tops = Json::array();
  for (const TokenWithLogprobs& token : delta.logprobs) {
    tokens.push_back(token_text(token.id));
    values.push_back(std::max(token.logprobs.chosen, kLeastLogprob));
    Json top = Json::object();
    for (const runtime::TokenLogprob& t : token.logprobs.top) {
      top[token_text(t.id)] = std::max(t.logprob, kLeastLogprob);
    }
    tops.push_back(std::move(top));
  }
  return {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", tops}};
}

std::string AnswerWriter::logprobs_text(const AnswerDelta& delta) const {
  if (!logprobs_) return "null";
  return dump(kind_ == AnswerKind::kChat ? chat_logprobs(delta) : completion_logprobs(delta));
}

Json AnswerWriter::call_json(const ToolCall& call, uint32_t index) const {
  Json json;
  if (call.begins) {
    // Unique as the answer's own id is, of which it has 96 bits: OpenAI's take 40 characters.
    const std::string_view own = std::string_view(id_).substr(id_.find('-') + 1).substr(0, 24);
    json["id"] = fmt::format("call_{}_{}_{}", own, index, call.index);
    json["type"] = "function";
    json["function"]["name"] = call.name;
  }
  json["function"]["arguments"] = call.arguments;
  return json;
}

Json AnswerWriter::message_json(const Answer& answer, const AnswerDelta& all,
                                uint32_t index) const {
  Json json{{"role", "assistant"}, {"content", all.text}};
  if (all.text.empty() && !all.calls.empty()) json["content"] = nullptr;
  if (answer.reasons()) json["reasoning_content"] = all.reasoning;
  for (const ToolCall& call : all.calls) json["tool_calls"].push_back(call_json(call, index));
  return json;
}

std::string AnswerWriter::body(std::span<Answer> answers, const Usage& usage) const {
  const bool chat = kind_ == AnswerKind::kChat;
  Json json = head(chat ? "chat.completion" : "text_completion");
  json["choices"] = Json::array();
  for (Answer& answer : answers) {
    AnswerDelta delta = answer.take_delta();
    Json choice;
    const auto index = uint32_t(json["choices"].size());
    choice["index"] = index;
    if (chat) {
      choice["message"] = message_json(answer, delta, index);
      choice["logprobs"] = logprobs_ ? chat_logprobs(delta) : Json();
    } else {
      if (logprobs_) {
        choice["logprobs"] = completion_logprobs(delta);
        Json& offsets = choice["logprobs"]["text_offset"] = Json::array();
        size_t offset = 0;
        for (const TokenWithLogprobs& token : delta.logprobs) {
          offsets.push_back(offset);
          offset += characters(token_bytes(model_->tokenizer(), token.id));
        }
      } else {
        choice["logprobs"] = nullptr;
      }
      choice["text"] = std::move(delta.text);
    }
    choice["finish_reason"] = finish_word(answer);
    if (ids_) choice["token_ids"] = delta.ids;
    json["choices"].push_back(std::move(choice));
  }
  json["usage"] = usage_json(usage);
  return dump(json);
}

void AnswerWriter::append_begin(std::string& out, uint32_t index) const {
  if (kind_ != AnswerKind::kChat) return;
  fmt::format_to(std::back_inserter(out),
                 "data: {}{},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":"
                 "null,\"finish_reason\":null}}]{}}}\n\n",
                 event_head_, index, usage_in_events_ ? ",\"usage\":null" : "");
}

void AnswerWriter::append_news(std::string& out, uint32_t index, Answer& answer) const {
  const AnswerDelta delta = answer.take_delta();
  const char* finish = answer.ended() ? finish_word(answer) : nullptr;
  // Clients take a call for whole when the end has come, also one in the same event.
  const bool apart = finish != nullptr && !delta.calls.empty();
  append_piece(out, index, delta, apart ? nullptr : finish);
  if (apart) append_piece(out, index, {}, finish);
}

void AnswerWriter::append_chat_delta(std::string& out, uint32_t index,
                                     const AnswerDelta& delta) const {
  const char* comma = "";
  out += ",\"delta\":{";
  if (!delta.reasoning.empty()) {
    out += "\"reasoning_content\":";
    append_quoted(out, delta.reasoning);
    comma = ",";
  }
  if (!delta.text.empty()) {
    out += comma;
    out += "\"content\":";
    append_quoted(out, delta.text);
    comma = ",";
  }
  if (!delta.calls.empty()) {
    Json calls = Json::array();
    for (const ToolCall& call : delta.calls) {
      calls.push_back({{"index", call.index}});
      calls.back().update(call_json(call, index));
    }
    fmt::format_to(std::back_inserter(out), "{}\"tool_calls\":{}", comma, dump(calls));
  }
  out += '}';
}

void AnswerWriter::append_piece(std::string& out, uint32_t index, const AnswerDelta& delta,
                                const char* finish) const {
  out += "data: ";
  out += event_head_;
  fmt::format_to(std::back_inserter(out), "{}", index);
  if (kind_ == AnswerKind::kChat) {
    append_chat_delta(out, index, delta);
  } else {
    out += ",\"text\":";
    append_quoted(out, delta.text);
  }
  out += ",\"logprobs\":";
  out += delta.logprobs.empty() ? "null" : logprobs_text(delta);
  out += ",\"finish_reason\":";
  if (finish != nullptr) {
    append_quoted(out, finish);
  } else {
    out += "null";
  }
  if (ids_) {
    out += ",\"token_ids\":";
    out += dump(Json(delta.ids));
  }
  out += usage_in_events_ ? "}],\"usage\":null}\n\n" : "}]}\n\n";
}

void AnswerWriter::append_usage(std::string& out, const Usage& usage) const {
  Json json = head(kind_ == AnswerKind::kChat ? "chat.completion.chunk" : "text_completion");
  json["choices"] = Json::array();
  json["usage"] = usage_json(usage);
  append_event(out, dump(json));
}

}  // namespace hadal::serve
