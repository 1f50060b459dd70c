#include "hadal/runtime/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace hadal::runtime {
namespace {

Status error(std::string text) {
  return {Errc::kInvalidArgument, "engine: " + std::move(text)};
}

// Seconds since its construction.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

SchedulerOptions scheduler_options(const EngineOptions& options, uint32_t context) {
  SchedulerOptions result;
  result.max_rows = options.max_rows, result.max_chunk = options.max_chunk;
  result.max_context = context, result.aging_steps = options.aging_steps;
  result.step_seconds = options.step_seconds;
  return result;
}

}  // namespace

Engine::Engine(model::Model& model, PagePool& pages, EngineOptions options, PrefillPipeline prefill,
               DecodePipeline decode, Sampler sampler)
    : model_(&model),
      pages_(&pages),
      options_(options),
      prefill_(std::move(prefill)),
      decode_(std::move(decode)),
      sampler_(std::move(sampler)),
      scheduler_(pages, scheduler_options(options, model.options().max_context)) {}

Result<Engine> Engine::create(Device& device, model::Model& model, const KvCache& cache,
                              PagePool& pages, const EngineOptions& options) {
  const model::ModelOptions& limits = model.options();
  const uint32_t rows = std::min(limits.max_decode_rows, limits.max_logit_rows);
  if (options.max_rows == 0 || options.max_rows > rows) {
    return error(
        fmt::format("max_rows must be 1 to the model's {}, got {}", rows, options.max_rows));
  }
  if (options.max_chunk == 0 || options.max_chunk > limits.max_tokens) {
    return error(fmt::format("max_chunk must be 1 to the model's {}, got {}", limits.max_tokens,
                             options.max_chunk));
  }
  if (pages.total_pages() > cache.view().pages) {
    return error(fmt::format("the pool must have at most the cache's {} pages, got {}",
                             cache.view().pages, pages.total_pages()));
  }
  HADAL_ASSIGN(PrefillPipeline prefill, PrefillPipeline::create(device, model, cache));
  HADAL_ASSIGN(DecodePipeline decode,
               DecodePipeline::create(device, model, cache, options.max_rows));
  HADAL_ASSIGN(Sampler sampler,
               Sampler::create(device, options.max_rows, model.config().vocab_size));
  return Engine(model, pages, options, std::move(prefill), std::move(decode), std::move(sampler));
}

Result<RequestId> Engine::add(const EngineRequest& request) {
  HADAL_TRY(check_sampling(request.sampling));
  const uint32_t context = model_->options().max_context, vocab = model_->config().vocab_size;
  if (request.prompt.size() >= context) {
    return error(fmt::format("the prompt must be shorter than the context of {} tokens, got {}",
                             context, request.prompt.size()));
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] < vocab) continue;
    return error(
        fmt::format("token ids must be below {}, got {} at index {}", vocab, request.prompt[i], i));
  }
  const uint32_t prompt = uint32_t(request.prompt.size());
  const uint32_t tokens = std::min(request.max_new_tokens, context - prompt);
  HADAL_ASSIGN(const RequestId id, scheduler_.add({request.prompt, tokens, request.priority}));
  requests_[id] = {request.sampling, request.stop_ids, prompt + tokens};
  return id;
}

void Engine::cancel(RequestId request) {
  if (requests_.erase(request)) scheduler_.remove(request);
}

Result<std::vector<EngineToken>> Engine::step() {
  const StepPlan plan = scheduler_.plan();
  if (plan.empty()) return std::vector<EngineToken>();
  Result<std::vector<EngineToken>> tokens = run_plan(plan);
  if (!tokens.ok()) {
    // What the cache holds of the step's sequences is unknown.
    for (const auto& [id, request] : requests_) scheduler_.remove(id);
    requests_.clear();
  }
  return tokens;
}

Result<std::vector<EngineToken>> Engine::run_plan(const StepPlan& plan) {
  std::vector<EngineToken> tokens;
  uint32_t rows = 0, prefilled = 0;
  double decode_seconds = 0.0, prefill_seconds = 0.0;
  if (!plan.decode.empty()) {
    for (const PlannedWork& work : plan.decode) rows += work.tokens;
    const Stopwatch watch;
    HADAL_TRY(run_decode(plan, tokens));
    decode_seconds = watch.seconds();
  }
  for (const PlannedWork& work : plan.prefill) {
    const Stopwatch watch;
    HADAL_TRY(run_prefill(work, tokens));
    prefilled += work.tokens;
    prefill_seconds += watch.seconds();
  }
  scheduler_.measured(rows, decode_seconds, prefilled, prefill_seconds);
  ++stats_.steps;
  stats_.decoded_rows += rows, stats_.prefilled_tokens += prefilled;
  stats_.decode_seconds += decode_seconds, stats_.prefill_seconds += prefill_seconds;
  return tokens;
}

Status Engine::record_draw(Recorder& recorder, uint32_t first, uint32_t rows) {
  HADAL_TRY(model_->record_head(recorder, first, rows));
  return sampler_.record(recorder, model_->logits().address(), rows);
}

Status Engine::run_decode(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  // Rows that only fill the cache first, then those that are drawn from, one of a request.
  std::vector<DecodeRow> rows, drawn;
  std::vector<RequestId> drawn_requests;
  for (const PlannedWork& work : plan.decode) {
    const auto ids = scheduler_.tokens(work.request);
    SequencePages* pages = &scheduler_.pages(work.request);
    const uint32_t end = work.begin + work.tokens;
    for (uint32_t position = work.begin; position < end; ++position) {
      const bool draw = work.last && position + 1 == end;
      (draw ? drawn : rows).push_back({pages, ids[position], position});
    }
    if (!work.last) continue;
    sampler_.set_row(uint32_t(drawn_requests.size()), requests_.at(work.request).sampling, end);
    drawn_requests.push_back(work.request);
  }
  const uint32_t first = uint32_t(rows.size());
  rows.insert(rows.end(), drawn.begin(), drawn.end());
  HADAL_TRY(decode_.step(rows, [&](Recorder& recorder) -> Status {
    return drawn.empty() ? Status() : record_draw(recorder, first, uint32_t(drawn.size()));
  }));
  for (const PlannedWork& work : plan.decode) scheduler_.done(work);
  for (uint32_t row = 0; row < drawn_requests.size(); ++row) {
    take_token(drawn_requests[row], row, tokens);
  }
  return {};
}

Status Engine::run_prefill(const PlannedWork& work, std::vector<EngineToken>& tokens) {
  const auto ids = scheduler_.tokens(work.request).subspan(work.begin, work.tokens);
  if (work.last) {
    sampler_.set_row(0, requests_.at(work.request).sampling, work.begin + work.tokens);
  }
  HADAL_TRY(prefill_.run(scheduler_.pages(work.request), work.begin, ids,
                         [&](Recorder& recorder, const PrefillChunk& chunk) -> Status {
                           if (!work.last || !chunk.last) return {};
                           return record_draw(recorder, chunk.tokens - 1, 1);
                         }));
  scheduler_.done(work);
  if (work.last) take_token(work.request, 0, tokens);
  return {};
}

void Engine::take_token(RequestId id, uint32_t row, std::vector<EngineToken>& tokens) {
  const Request& request = requests_.at(id);
  EngineToken token{id, sampler_.id(row)};
  scheduler_.append(id, token.id);
  if (std::find(request.stop_ids.begin(), request.stop_ids.end(), token.id) !=
      request.stop_ids.end()) {
    token.finish = FinishReason::kStop;
  } else if (scheduler_.tokens(id).size() >= request.length) {
    token.finish = FinishReason::kLength;
  }
  if (token.finish != FinishReason::kNone) cancel(id);
  tokens.push_back(token);
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.scheduler = scheduler_.stats(), stats.pages = pages_->stats();
  return stats;
}

}  // namespace hadal::runtime
