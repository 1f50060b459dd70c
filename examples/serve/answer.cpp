#include "serve/answer.h"

#include <utility>

namespace hadal::serve {

Answer::Answer(const Options& options)
    : keep_ids_(options.keep_ids),
      end_of_reasoning_(options.end_of_reasoning),
      splitter_(options.reasons) {
  delta_.text = options.echo;
  news_ = !options.echo.empty();
}

void Answer::take(const runtime::EngineToken& token) {
  const auto show = [this](SplitText split) {
    delta_.reasoning += split.reasoning, delta_.text += split.answer;
    news_ = news_ || !split.reasoning.empty() || !split.answer.empty();
    waiting_bytes_ += split.reasoning.size() + split.answer.size();
  };
  if (token.has_token) {
    ++tokens_;
    reasoning_tokens_ += splitter_.reasoning();
    if (splitter_.reasoning() && token.id == end_of_reasoning_ && token.text.empty()) {
      splitter_.end_reasoning();
    }
    if (keep_ids_) delta_.ids.push_back(token.id), waiting_bytes_ += sizeof token.id;
    if (token.logprobs) {
      delta_.logprobs.push_back({token.id, *token.logprobs});
      waiting_bytes_ +=
          sizeof(TokenWithLogprobs) + token.logprobs->top.size() * sizeof(runtime::TokenLogprob);
    }
    news_ = news_ || keep_ids_ || token.logprobs;
  }
  if (!token.text.empty()) show(splitter_.push(token.text));
  if (token.finish == runtime::FinishReason::kNone) return;
  show(splitter_.flush());
  finish_ = token.finish, status_ = token.status;
  news_ = true;
}

AnswerDelta Answer::take_delta() {
  news_ = false;
  waiting_bytes_ = 0;
  return std::exchange(delta_, {});
}

}  // namespace hadal::serve
