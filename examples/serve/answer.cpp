#include "serve/answer.h"

#include <utility>

namespace hadal::serve {

Answer::Answer(const Options& options)
    : keep_ids_(options.keep_ids),
      most_calls_(options.most_calls),
      marks_(options.marks),
      silent_marks_(options.silent_marks),
      splitter_(options.reasoning) {
  delta_.text = options.echo;
  news_ = !options.echo.empty();
}

void Answer::add(TextAndCalls news) {
  size_t bytes = news.text.size();
  delta_.text += news.text;
  for (ToolCall& call : news.calls) {
    if (call.index >= most_calls_) continue;
    bytes += call.name.size() + call.arguments.size() + sizeof call;
    if (call.begins) {
      delta_.calls.push_back(std::move(call));
    } else {
      delta_.add_arguments(call.index, call.arguments);
    }
  }
  news_ = news_ || bytes > 0;
  waiting_bytes_ += bytes;
}

void Answer::show(const SplitText& split) {
  delta_.reasoning += split.reasoning;
  news_ = news_ || !split.reasoning.empty();
  waiting_bytes_ += split.reasoning.size();
  TextAndCalls news;
  if (most_calls_ > 0) {
    calls_.push(split.answer, news);
  } else {
    news.text = split.answer;
  }
  add(std::move(news));
}

void Answer::split(const runtime::EngineToken& token) {
  const auto mark = token.has_token ? marks_.of(token.id) : examples::ReasoningMark::kNone;
  const bool reasoned = splitter_.reasoning(), had_begun = splitter_.has_begun();
  std::string text = token.text;
  if (most_calls_ > 0 && token.has_token) {
    for (const SilentMark& silent : silent_marks_) text += silent.id == token.id ? silent.text : "";
  }
  show(splitter_.push(text, mark));
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
  if (most_calls_ > 0) {
    TextAndCalls rest;
    calls_.flush(rest);
    add(std::move(rest));
  }
  finish_ = token.finish, status_ = token.status;
  news_ = true;
}

AnswerDelta Answer::take_delta() {
  news_ = false;
  waiting_bytes_ = 0;
  return std::exchange(delta_, {});
}

}  // namespace hadal::serve
