// One answer of a request as its tokens come: what a client may see of it now, and how it ended.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/reasoning.h"
#include "hadal/runtime/engine_token.h"
#include "serve/tool_calls.h"

namespace hadal::serve {

using examples::Reasoning, examples::ReasoningSplitter, examples::SplitText;

struct TokenWithLogprobs {
  uint32_t id = 0;
  runtime::TokenLogprobs logprobs;
};

// What came since the last look.
struct AnswerDelta : TextAndCalls {
  std::string reasoning;
  std::vector<TokenWithLogprobs> logprobs;  // where asked for
  std::vector<uint32_t> ids;                // where asked for
};

class Answer {
 public:
  struct Options {
    std::string echo{};  // in front of the text
    Reasoning reasoning = Reasoning::kNever;
    bool keep_ids = false;
    examples::SpecialMarks marks{};
    uint32_t most_calls = 0;  // of tools, those behind them are left out; 0: calls are text
    std::span<const SilentMark> silent_marks{};  // of calls; must outlive the answer
  };
  explicit Answer(const Options& options);

  void take(const runtime::EngineToken& token);
  // Something to show, or the end that has not been looked at.
  [[nodiscard]] bool news() const { return news_; }
  [[nodiscard]] AnswerDelta take_delta();
  // Bytes that wait in the delta, about.
  [[nodiscard]] size_t waiting_bytes() const { return waiting_bytes_; }

  [[nodiscard]] bool ended() const { return finish_ != runtime::FinishReason::kNone; }
  [[nodiscard]] runtime::FinishReason finish() const { return finish_; }
  [[nodiscard]] const Status& status() const { return status_; }  // not ok: failed
  [[nodiscard]] uint64_t tokens() const { return tokens_; }
  // Whether it began with reasoning, as far as is known.
  [[nodiscard]] bool reasons() const { return splitter_.has_begun(); }
  // Those of its marks included.
  [[nodiscard]] uint64_t reasoning_tokens() const { return reasoning_tokens_; }
  [[nodiscard]] bool calls_tools() const { return most_calls_ > 0 && calls_.calls() > 0; }

 private:
  void split(const runtime::EngineToken& token);
  void show(const SplitText& split);
  void add(TextAndCalls news);

  bool keep_ids_;
  uint32_t most_calls_;
  examples::SpecialMarks marks_;
  std::span<const SilentMark> silent_marks_;
  ReasoningSplitter splitter_;
  ToolCallSplitter calls_;
  AnswerDelta delta_;
  bool news_ = false;
  size_t waiting_bytes_ = 0;
  runtime::FinishReason finish_ = runtime::FinishReason::kNone;
  Status status_;
  uint64_t tokens_ = 0, reasoning_tokens_ = 0;
};

}  // namespace hadal::serve
