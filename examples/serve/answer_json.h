// Answers as OpenAI writes them: one body, or server-sent events of pieces.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "serve/answer.h"
#include "serve/served_model.h"

namespace hadal::serve {

struct Usage {
  uint64_t prompt_tokens = 0, completion_tokens = 0, reasoning_tokens = 0;
  bool reasons = false;  // any of the answers: reasoning_tokens is reported
};

// "data: JSON\n\n".
void append_event(std::string& out, std::string_view json);
inline constexpr std::string_view kDoneEvent = "data: [DONE]\n\n";

class AnswerWriter {
 public:
  // `id` and what all pieces share are written once. The model must outlive it.
  AnswerWriter(const ServedModel& model, const GenerateRequest& asked, std::string id,
               int64_t created);

  // The body of answers that have ended, without a failure.
  [[nodiscard]] std::string body(std::span<Answer> answers, const Usage& usage) const;
  // The event before all others of a chat's answer; nothing for completions.
  void append_begin(std::string& out, uint32_t index) const;
  // What is new of an answer, as one event or two. Requires news().
  void append_news(std::string& out, uint32_t index, Answer& answer) const;
  void append_usage(std::string& out, const Usage& usage) const;

 private:
  [[nodiscard]] Json head(const char* object) const;
  void append_chat_delta(std::string& out, uint32_t index, const AnswerDelta& delta) const;
  // An event; `finish` may be null.
  void append_piece(std::string& out, uint32_t index, const AnswerDelta& delta,
                    const char* finish) const;
  [[nodiscard]] Json message_json(const Answer& answer, const AnswerDelta& all,
                                  uint32_t index) const;
  // `index` of the answer, of which the call's id is made.
  [[nodiscard]] Json call_json(const ToolCall& call, uint32_t index) const;
  [[nodiscard]] Json completion_logprobs(const AnswerDelta& delta) const;
  [[nodiscard]] Json chat_logprobs(const AnswerDelta& delta) const;
  [[nodiscard]] Json token_json(uint32_t id, float logprob) const;
  // The text of a token alone; what is no text as "bytes:\xE2\x80".
  [[nodiscard]] std::string token_text(uint32_t id) const;
  [[nodiscard]] std::string logprobs_text(const AnswerDelta& delta) const;

  const ServedModel* model_;
  AnswerKind kind_;
  bool logprobs_, ids_, usage_in_events_;
  std::string id_;
  int64_t created_;
  std::string event_head_;  // "{...,"choices":[{"index":"
};

}  // namespace hadal::serve
