#include "chat/engine_answerer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace hadal::chat {
namespace {

using Clock = std::chrono::steady_clock;
using runtime::FinishReason;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

EngineAnswerer::EngineAnswerer(runtime::Engine& engine, const model::Tokenizer& tokenizer,
                               Options options)
    : engine_(engine), tokenizer_(tokenizer), options_(std::move(options)), marks_(tokenizer) {}

Result<runtime::EngineRequest> EngineAnswerer::request(const Prompt& prompt,
                                                       const Settings& settings,
                                                       uint64_t seed) const {
  runtime::EngineRequest request;
  HADAL_ASSIGN(request.prompt, tokenizer_.encode(prompt.text, prompt.add_special));
  if (request.prompt.empty()) {
    return Status(Errc::kInvalidArgument, "the conversation must have at least one token, got 0");
  }
  if (request.prompt.size() >= options_.context) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("the conversation must be shorter than the context of {} tokens, got {}: "
                    "the question is taken back; /reset begins a new conversation, /undo "
                    "takes earlier questions back",
                    options_.context, request.prompt.size()));
  }
  request.max_new_tokens = settings.max_tokens ? settings.max_tokens : options_.context;
  request.sampling = settings.sampling;
  request.sampling.seed = seed;
  request.stop_ids = options_.end_ids;
  request.stop = options_.stop;
  return request;
}

Result<AnswerResult> EngineAnswerer::answer(
    const Prompt& prompt, const Settings& settings, uint64_t seed,
    const std::function<bool(const AnswerPiece&)>& on_piece) {
  const auto start = Clock::now();
  const runtime::EngineStats before = engine_.stats();
  HADAL_ASSIGN(const runtime::EngineRequest asked, request(prompt, settings, seed));
  HADAL_ASSIGN(const runtime::RequestId id, engine_.add(asked));
  AnswerResult result;
  AnswerFigures& figures = result.figures;
  figures.prompt_tokens = asked.prompt.size(), figures.seed = seed;
  Clock::time_point first{}, last{};
  bool wanted = true;
  while (wanted && !engine_.idle()) {
    if (options_.interrupted()) break;
    Result<std::vector<runtime::EngineToken>> tokens = engine_.step();
    if (!tokens.ok()) {
      engine_.cancel(id);
      return tokens.status();
    }
    for (const runtime::EngineToken& token : *tokens) {
      if (token.has_token) {
        last = Clock::now();
        if (figures.generated_tokens++ == 0) first = last;
      }
      if (token.finish == FinishReason::kFailed) return token.status;
      if (token.finish == FinishReason::kLength) {
        const bool full = figures.prompt_tokens + figures.generated_tokens >= options_.context;
        result.end = full ? AnswerEnd::kContext : AnswerEnd::kMaxTokens;
      }
      const auto mark = token.has_token ? marks_.of(token.id) : examples::ReasoningMark::kNone;
      if (wanted && (!token.text.empty() || mark != examples::ReasoningMark::kNone)) {
        wanted = on_piece({token.text, mark});
      }
    }
  }
  if (!engine_.idle()) {
    engine_.cancel(id);
    result.end = AnswerEnd::kInterrupted;
  }
  const runtime::EngineStats after = engine_.stats();
  figures.reused_tokens = after.scheduler.reused_tokens - before.scheduler.reused_tokens;
  figures.prefilled_tokens = after.prefilled_tokens - before.prefilled_tokens;
  figures.drafts = after.verified_drafts - before.verified_drafts;
  figures.accepted_drafts = after.accepted_drafts - before.accepted_drafts;
  if (figures.generated_tokens > 0) {
    figures.first_token_seconds = seconds_between(start, first);
    figures.decode_seconds = seconds_between(first, last);
  }
  return result;
}

}  // namespace hadal::chat
