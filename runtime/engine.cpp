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

Engine::Engine(model::Model& model, const KvCache& cache, PagePool& pages, EngineOptions options,
               PrefillPipeline prefill, DecodePipeline decode, Sampler sampler, Sampler drafter)
    : model_(&model),
      cache_(&cache),
      pages_(&pages),
      options_(options),
      prefill_(std::move(prefill)),
      decode_(std::move(decode)),
      sampler_(std::move(sampler)),
      drafter_(std::move(drafter)),
      row_status_(options.max_rows),
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
  if (options.speculate && model.weights().mtp.empty()) {
    return Status(
        Errc::kUnsupported,
        "engine: the checkpoint has no MTP layer to speculate with, or it was not loaded");
  }
  const RecorderOptions recorder =
      options.trace ? options.trace->recorder_options() : RecorderOptions{};
  HADAL_ASSIGN(PrefillPipeline prefill, PrefillPipeline::create(device, model, cache, recorder));
  HADAL_ASSIGN(DecodePipeline decode,
               DecodePipeline::create(device, model, cache, options.max_rows, recorder));
  prefill.set_trace(options.trace);
  decode.set_trace(options.trace);
  HADAL_ASSIGN(Sampler sampler,
               Sampler::create(device, options.max_rows, model.config().vocab_size));
  HADAL_ASSIGN(Sampler drafter,
               Sampler::create(device, options.max_rows, model.config().vocab_size));
  for (uint32_t row = 0; row < options.max_rows; ++row) drafter.set_row(row, {}, 0);  // greedy
  return Engine(model, cache, pages, options, std::move(prefill), std::move(decode),
                std::move(sampler), std::move(drafter));
}

Result<RequestId> Engine::add(const EngineRequest& request) {
  const uint32_t context = model_->options().max_context, vocab = model_->config().vocab_size;
  HADAL_TRY(check_sampling(request.sampling, vocab));
  if (request.logprobs && *request.logprobs > kMaxTopLogprobs) {
    return error(
        fmt::format("logprobs must be at most {}, got {}", kMaxTopLogprobs, *request.logprobs));
  }
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
  RequestSampling sampling(request.sampling, request.logprobs, request.mask, request.prompt, vocab);
  requests_.emplace(id, Request{std::move(sampling), request.stop_ids, prompt + tokens, {}});
  return id;
}

void Engine::cancel(RequestId request) {
  if (requests_.erase(request)) scheduler_.remove(request);
}

StepPlan Engine::make_plan() {
  const Trace::Span span(options_.trace, "plan");
  return scheduler_.plan();
}

Result<std::vector<EngineToken>> Engine::step() {
  const Trace::Span span(options_.trace, "step");
  const StepPlan plan = make_plan();
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
    for (const PlannedWork& work : plan.decode) rows += work.tokens + work.drafts;
    const Trace::Span span(options_.trace, "decode");
    const Stopwatch watch;
    HADAL_TRY(run_decode(plan, tokens));
    decode_seconds = watch.seconds();
  }
  for (const PlannedWork& work : plan.prefill) {
    const Trace::Span span(options_.trace, "prefill");
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

Status Engine::record_drafts(Recorder& recorder, const model::DecodeBatch& batch) {
  recorder.barrier();
  model::DecodeBatch next = batch;
  next.ids = sampler_.ids();
  HADAL_TRY(model_->record_mtp(recorder, 0, next, cache_->view(), model_->hidden()));
  HADAL_TRY(model_->record_mtp_head(recorder, 0, 0, batch.tokens));
  return drafter_.record(recorder, model_->logits().address(), batch.tokens);
}

Status Engine::run_decode(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  const bool drafting = options_.speculate && (options_.always_draft || policy_.drafts());
  // Every row is drawn from: a replayed one draws its next token again, which the MTP layer needs.
  std::vector<DecodeRow> rows;
  for (const PlannedWork& work : plan.decode) {
    const auto ids = scheduler_.tokens(work.request);
    SequencePages* pages = &scheduler_.pages(work.request);
    Request& request = requests_.at(work.request);
    const auto drafts =
        request.draft ? std::span<const uint32_t>(&*request.draft, 1) : std::span<const uint32_t>();
    for (uint32_t i = 0; i < work.tokens + work.drafts; ++i) {
      const uint32_t position = work.begin + i, row = uint32_t(rows.size());
      row_status_[row] = request.sampling.set_row(sampler_, row, ids, drafts, position);
      rows.push_back({pages, position < ids.size() ? ids[position] : *request.draft, position});
    }
  }
  HADAL_TRY(sampler_.prepare(uint32_t(rows.size())).status());
  const Stopwatch watch;
  const auto draw = [&](Recorder& recorder, const model::DecodeBatch& batch) -> Status {
    HADAL_TRY(record_draw(recorder, 0, batch.tokens));
    return drafting ? record_drafts(recorder, batch) : Status();
  };
  HADAL_TRY(decode_.step(rows, draw));
  const size_t before = tokens.size();
  uint32_t row = 0;
  for (const PlannedWork& work : plan.decode) {
    scheduler_.done(work);
    if (work.last) take_tokens(work, row + work.tokens - 1, drafting, tokens);
    row += work.tokens + work.drafts;
  }
  stats_.decoded_tokens += tokens.size() - before;
  policy_.measured(watch.seconds(), double(tokens.size() - before) / double(plan.decode.size()));
  return {};
}

void Engine::take_tokens(const PlannedWork& work, uint32_t row, bool drafted,
                         std::vector<EngineToken>& tokens) {
  const std::optional<uint32_t> draft = requests_.at(work.request).draft;
  if (!take_token(work.request, row, tokens)) return;
  stats_.verified_drafts += work.drafts;
  if (work.drafts && *draft == sampler_.id(row)) {
    ++stats_.accepted_drafts;
    scheduler_.accept_draft(work.request);
    if (!take_token(work.request, ++row, tokens)) return;
  }
  Request& request = requests_.at(work.request);
  request.draft.reset();
  if (drafted) request.draft = drafter_.id(row);
  scheduler_.set_drafts(work.request, drafted ? 1 : 0);
}

Status Engine::run_prefill(const PlannedWork& work, std::vector<EngineToken>& tokens) {
  const auto ids = scheduler_.tokens(work.request);
  if (work.last) {
    RequestSampling& sampling = requests_.at(work.request).sampling;
    row_status_[0] = sampling.set_row(sampler_, 0, ids, {}, work.begin + work.tokens - 1);
    HADAL_TRY(sampler_.prepare(1).status());
  }
  HADAL_TRY(prefill_.run(scheduler_.pages(work.request), work.begin,
                         ids.subspan(work.begin, work.tokens),
                         [&](Recorder& recorder, const PrefillChunk& chunk) -> Status {
                           if (!work.last || !chunk.last) return {};
                           return record_draw(recorder, chunk.tokens - 1, 1);
                         }));
  scheduler_.done(work);
  if (work.last && !take_token(work.request, 0, tokens)) return {};
  return options_.speculate ? prefill_drafts(work) : Status();
}

Status Engine::prefill_drafts(const PlannedWork& work) {
  const auto next = scheduler_.tokens(work.request).subspan(work.begin + 1, work.tokens);
  const auto draw = [&](Recorder& recorder, const PrefillChunk& chunk) -> Status {
    if (!work.last) return {};
    HADAL_TRY(model_->record_mtp_head(recorder, 0, chunk.tokens - 1, 1));
    return drafter_.record(recorder, model_->logits().address(), 1);
  };
  HADAL_TRY(prefill_.run_mtp(0, scheduler_.pages(work.request), work.begin, next, model_->hidden(),
                             draw));
  if (!work.last) return {};
  requests_.at(work.request).draft = drafter_.id(0);
  scheduler_.set_drafts(work.request, 1);
  return {};
}

bool Engine::take_token(RequestId id, uint32_t row, std::vector<EngineToken>& tokens) {
  if (!row_status_[row].ok()) {
    cancel(id);
    return false;
  }
  const Request& request = requests_.at(id);
  EngineToken token{id, sampler_.id(row), FinishReason::kNone,
                    request.sampling.logprobs(sampler_, row)};
  scheduler_.append(id, token.id);
  if (std::find(request.stop_ids.begin(), request.stop_ids.end(), token.id) !=
      request.stop_ids.end()) {
    token.finish = FinishReason::kStop;
  } else if (scheduler_.tokens(id).size() >= request.length) {
    token.finish = FinishReason::kLength;
  }
  tokens.push_back(token);
  if (token.finish == FinishReason::kNone) return true;
  cancel(id);
  return false;
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.scheduler = scheduler_.stats(), stats.pages = pages_->stats();
  return stats;
}

}  // namespace hadal::runtime
