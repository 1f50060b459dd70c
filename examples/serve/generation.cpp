#include "serve/generation.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal::serve {
namespace {

using runtime::FinishReason;
using runtime::kPageTokens;

const char* finish_name(FinishReason finish, const Status& status) {
  switch (finish) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kDeadline: return "deadline";
    default: return status.code() == Errc::kCancelled ? "cancelled" : "failed";
  }
}

}  // namespace

Generation::Generation(Core& core, Job job, Time arrived, Signal& news)
    : core_(core), job_(std::move(job)), arrived_(arrived), news_(&news) {
  const bool tools = !job_.asked.tools.empty();
  const uint32_t most_calls = job_.asked.parallel_tool_calls ? UINT32_MAX : 1;
  answers_.reserve(job_.requests.size());
  for (size_t i = 0; i < job_.requests.size(); ++i) {
    answers_.emplace_back(
        Answer::Options{.echo = job_.echoes.empty() ? "" : job_.echoes[i / job_.asked.n],
                        .reasoning = job_.reasoning,
                        .keep_ids = job_.asked.return_token_ids,
                        .marks = core_.model.marks(),
                        .most_calls = tools ? most_calls : 0,
                        .silent_marks = core_.model.silent_marks()});
  }
}

std::optional<ApiError> Generation::submit(int32_t priority) {
  if (core_.stopping) {
    return ApiError{503, "server: it is stopping", "", "server_stopping", 1};
  }
  if (core_.requests + answers_.size() > core_.options.max_requests) {
    return ApiError{429,
                    fmt::format("server: requests must be at most {} at once, got {} more to {}",
                                core_.options.max_requests, answers_.size(), core_.requests),
                    "", "queue_full", 1};
  }
  const Time deadline =
      arrived_ + std::chrono::duration_cast<Clock::duration>(
                     std::chrono::duration<double>(core_.options.request_seconds));
  for (runtime::EngineRequest& request : job_.requests) {
    request.priority = priority;
    request.deadline = deadline;
  }
  live_requests_.resize(answers_.size());
  live_ = uint32_t(answers_.size());
  core_.requests += live_;
  core_.metrics.prompt_tokens += job_.prompt_tokens;
  for (uint32_t i = 0; i < answers_.size(); ++i) {
    const bool waits = i % job_.asked.n != 0 && job_.requests[i].prompt.size() > kPageTokens;
    if (waits) continue;
    if (const Status status = add(i); !status.ok()) {
      abandon();
      return error_of(status);
    }
  }
  return {};
}

Status Generation::add(uint32_t index) {
  const auto on_token = [self = shared_from_this(), index](const runtime::EngineToken& token) {
    self->core_.mailbox.push({self, index, token, Clock::now()});
  };
  HADAL_ASSIGN(live_requests_[index].id,
               core_.runner.add(std::move(job_.requests[index]), on_token));
  return {};
}

void Generation::add_others(uint32_t first) {
  for (uint32_t i = first + 1; i < first + job_.asked.n; ++i) {
    if (live_requests_[i].id != 0 || live_requests_[i].ended) continue;
    if (const Status status = add(i); !status.ok()) {
      runtime::EngineToken token;
      token.has_token = false, token.finish = FinishReason::kFailed, token.status = status;
      take(i, token, Clock::now());
    }
  }
}

void Generation::abandon() {
  abandoned_ = true;
  cancel();
}

void Generation::cancel() {
  for (uint32_t i = 0; i < live_requests_.size(); ++i) {
    if (live_requests_[i].ended) continue;
    if (live_requests_[i].id != 0) {
      core_.runner.cancel(live_requests_[i].id);
      continue;
    }
    runtime::EngineToken token;
    token.has_token = false, token.finish = FinishReason::kFailed;
    token.status = {Errc::kCancelled, "server: the request was cancelled"};
    take(i, token, Clock::now());
  }
}

void Generation::take(uint32_t index, const runtime::EngineToken& token, Time time) {
  Live& live = live_requests_[index];
  Answer& answer = answers_[index];
  if (token.has_token) count_token(live, time);
  if (token.finish != FinishReason::kNone) {
    live.ended = true;
    --live_, --core_.requests;
    ++core_.metrics.finished[finish_name(token.finish, token.status)];
    if (token.status.code() == Errc::kDeviceLost) core_.device_lost = true;
  }
  answer.take(token);
  if (abandoned_) return void(answer.take_delta());  // the log counts its tokens
  if (index % job_.asked.n == 0) add_others(index);
  news_->notify();
}

void Generation::count_token(Live& live, Time time) {
  const auto seconds_since = [time](Time from) {
    return std::chrono::duration<double>(time - from).count();
  };
  ++core_.metrics.generated_tokens;
  core_.metrics.rate.add(time, 1);
  if (live.last_token) {
    core_.metrics.between_tokens.add(seconds_since(*live.last_token));
  } else {
    core_.metrics.first_token.add(seconds_since(arrived_));
  }
  live.last_token = time;
  if (!first_token_) first_token_ = time;
}

bool Generation::has_news() const {
  return std::any_of(answers_.begin(), answers_.end(), [](const Answer& a) { return a.news(); });
}

size_t Generation::waiting_bytes() const {
  size_t bytes = 0;
  for (const Answer& answer : answers_) bytes += answer.waiting_bytes();
  return bytes;
}

std::optional<ApiError> Generation::failure() const {
  for (const Answer& answer : answers_) {
    if (!answer.status().ok()) return error_of(answer.status());
    if (answer.finish() == FinishReason::kDeadline && answer.tokens() == 0) {
      return ApiError{504, "server: the request's time was over before its first token", "",
                      "deadline_exceeded", 0};
    }
  }
  return {};
}

Usage Generation::usage() const {
  Usage usage;
  usage.prompt_tokens = job_.prompt_tokens;
  for (const Answer& answer : answers_) {
    usage.reasons = usage.reasons || answer.reasons();
    usage.completion_tokens += answer.tokens();
    usage.reasoning_tokens += answer.reasoning_tokens();
  }
  return usage;
}

std::string Generation::finish_words() const {
  std::string words;
  for (const Answer& answer : answers_) {
    words += words.empty() ? "" : ",";
    words += answer.ended() ? finish_name(answer.finish(), answer.status()) : "left";
  }
  return words;
}

std::optional<double> Generation::first_token_seconds() const {
  if (!first_token_) return {};
  return std::chrono::duration<double>(*first_token_ - arrived_).count();
}

}  // namespace hadal::serve
