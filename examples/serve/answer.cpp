#include "serve/answer.h"

#include <utility>

namespace hadal::serve {

Answer::Answer(const Options& options)
    : keep_ids_(options.keep_ids), marks_(options.marks), splitter_(options.reasoning) {
  delta_.text = options.echo;
  news_ = !options.echo.empty();
}

void Answer::show(const SplitText& split) {
  delta_.reasoning += split.reasoning, delta_.text += split.answer;
  news_ = news_ || !split.reasoning.empty() || !split.answer.empty();
  waiting_bytes_ += split.reasoning.size() + split.answer.size();
}

void Answer::split(const runtime::EngineToken& token) {
  const auto mark = token.has_token ? marks_.of(token.id) : examples::ReasoningMark::kNone;
  const bool reasoned = splitter_.reasoning(), had_begun = splitter_.has_begun();
  show(splitter_.push(token.text, mark));
  if (splitter_.has_begun() && !had_begun) {
    reasoning_tokens_ = tokens_;  // all that came before was held back for the mark
  } else {
    reasoning_tokens_ += token.has_token && reasoned;
  }
}

void Answer::take(const runtime::EngineToken& token) {
  if (token.has_token) {
    ++tokens_;
    if (keep_ids_) delta_.ids.push_back(token.id), waiting_bytes_ += sizeof token.id;
    if (token.logprobs) {
      delta_.logprobs.push_back({token.id, *token.logprobs});
      waiting_bytes_ +=
          sizeof(TokenWithLogprobs) + token.logprobs->top.size() * sizeof(runtime::TokenLogprob);
    }
    news_ = news_ || keep_ids_ || token.logprobs;
  }
  split(token);
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
