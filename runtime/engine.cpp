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
  HADAL_ASSIGN(PrefillPipeline prefill,
               PrefillPipeline::create(device, model, cache, {},
                                       std::min(options.max_rows, options.max_chunk)));
  HADAL_ASSIGN(DecodePipeline decode,
               DecodePipeline::create(device, model, cache, options.max_rows));
  HADAL_ASSIGN(Sampler sampler,
               Sampler::create(device, options.max_rows, model.config().vocab_size));
  HADAL_ASSIGN(Sampler drafter,
               Sampler::create(device, options.max_rows, model.config().vocab_size));
  for (uint32_t row = 0; row < options.max_rows; ++row) drafter.set_row(row, {}, 0);  // greedy
  return Engine(model, cache, pages, options, std::move(prefill), std::move(decode),
                std::move(sampler), std::move(drafter));
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
  requests_[id] = {request.sampling, request.stop_ids, prompt + tokens, {}};
  return id;
}

void Engine::cancel(RequestId request) {
  if (requests_.erase(request)) scheduler_.remove(request);
}

Result<std::vector<EngineToken>> Engine::step() {
  const Stopwatch watch;
  const StepPlan plan = scheduler_.plan();
  if (plan.empty()) return std::vector<EngineToken>();
  const double waited = prefill_.waited_seconds() + decode_.waited_seconds();
  Result<std::vector<EngineToken>> tokens = run_plan(plan);
  if (!tokens.ok()) {
    // What the cache holds of the step's sequences is unknown.
    for (const auto& [id, request] : requests_) scheduler_.remove(id);
    requests_.clear();
  }
  stats_.step_seconds += watch.seconds();
  stats_.wait_seconds += prefill_.waited_seconds() + decode_.waited_seconds() - waited;
  return tokens;
}

Result<std::vector<EngineToken>> Engine::run_plan(const StepPlan& plan) {
  std::vector<EngineToken> tokens;
  uint32_t rows = 0, prefilled = 0;
  double decode_seconds = 0.0, prefill_seconds = 0.0;
  if (!plan.decode.empty()) {
    for (const PlannedWork& work : plan.decode) rows += work.tokens + work.drafts;
    const Stopwatch watch;
    HADAL_TRY(run_decode(plan, tokens));
    decode_seconds = watch.seconds();
  }
  if (!plan.prefill.empty()) {
    for (const PlannedWork& work : plan.prefill) prefilled += work.tokens;
    const Stopwatch watch;
    HADAL_TRY(run_prefill(plan, tokens));
    prefill_seconds = watch.seconds();
  }
  scheduler_.measured(rows, decode_seconds, prefilled, prefill_seconds);
  ++stats_.steps;
  stats_.decoded_rows += rows, stats_.prefilled_tokens += prefilled;
  stats_.decode_seconds += decode_seconds, stats_.prefill_seconds += prefill_seconds;
  return tokens;
}

Status Engine::record_draw(Recorder& recorder, uint32_t first, uint32_t rows) {
  model::Pass& pass = decode_.pass();
  HADAL_TRY(pass.record_head(recorder, first, rows));
  return sampler_.record(recorder, pass.logits().address(), rows);
}

Status Engine::record_drafts(Recorder& recorder, const model::DecodeBatch& batch) {
  recorder.barrier();
  model::DecodeBatch next = batch;
  next.ids = sampler_.ids();
  model::Pass& pass = decode_.pass();
  HADAL_TRY(pass.record_mtp(recorder, 0, next, cache_->view(), pass.hidden()));
  HADAL_TRY(pass.record_mtp_head(recorder, 0, 0, batch.tokens));
  return drafter_.record(recorder, pass.logits().address(), batch.tokens);
}

Status Engine::run_decode(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  const bool drafting = options_.speculate && (options_.always_draft || policy_.drafts());
  // Every row is drawn from: a replayed one draws its next token again, which the MTP layer needs.
  std::vector<DecodeRow> rows;
  for (const PlannedWork& work : plan.decode) {
    const auto ids = scheduler_.tokens(work.request);
    SequencePages* pages = &scheduler_.pages(work.request);
    const Request& request = requests_.at(work.request);
    for (uint32_t i = 0; i < work.tokens + work.drafts; ++i) {
      const uint32_t position = work.begin + i;
      sampler_.set_row(uint32_t(rows.size()), request.sampling, position + 1);
      rows.push_back({pages, position < ids.size() ? ids[position] : *request.draft, position});
    }
  }
  const Stopwatch watch;
  const auto draw = [&](Recorder& recorder, const model::DecodeBatch& batch) -> Status {
    HADAL_TRY(record_draw(recorder, 0, batch.tokens));
    return drafting ? record_drafts(recorder, batch) : Status();
  };
  HADAL_TRY(decode_.step(rows, /*key=*/drafting, draw));
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
  if (!take_token(work.request, sampler_.id(row), tokens)) return;
  stats_.verified_drafts += work.drafts;
  if (work.drafts && *draft == sampler_.id(row)) {
    ++stats_.accepted_drafts;
    scheduler_.accept_draft(work.request);
    if (!take_token(work.request, sampler_.id(++row), tokens)) return;
  }
  Request& request = requests_.at(work.request);
  request.draft.reset();
  if (drafted) request.draft = drafter_.id(row);
  scheduler_.set_drafts(work.request, drafted ? 1 : 0);
}

Status Engine::run_prefill(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  std::vector<PrefillPart> parts;
  std::vector<uint32_t> last_rows;  // whose hidden state gives a request's first token
  uint32_t rows = 0;
  for (const PlannedWork& work : plan.prefill) {
    const auto ids = scheduler_.tokens(work.request).subspan(work.begin, work.tokens);
    parts.push_back({&scheduler_.pages(work.request), work.begin, ids});
    rows += work.tokens;
    if (!work.last) continue;
    sampler_.set_row(uint32_t(last_rows.size()), requests_.at(work.request).sampling,
                     work.begin + work.tokens);
    last_rows.push_back(rows - 1);
  }
  const auto draw = [&](Recorder& recorder) -> Status {
    if (last_rows.empty()) return {};
    HADAL_TRY(prefill_.pass().record_head(recorder, last_rows));
    return sampler_.record(recorder, prefill_.pass().logits().address(),
                           uint32_t(last_rows.size()));
  };
  HADAL_TRY(prefill_.run_pass(parts, draw));
  if (options_.speculate) HADAL_TRY(prefill_drafts(plan, last_rows));
  uint32_t drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    scheduler_.done(work);
    if (!work.last) continue;
    const uint32_t row = drawn++;
    if (!take_token(work.request, sampler_.id(row), tokens) || !options_.speculate) continue;
    requests_.at(work.request).draft = drafter_.id(row);
    scheduler_.set_drafts(work.request, 1);
  }
  return {};
}

Status Engine::prefill_drafts(const StepPlan& plan, std::span<const uint32_t> last_rows) {
  std::vector<std::vector<uint32_t>> next_ids;  // each token's successor
  uint32_t drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    const auto ids = scheduler_.tokens(work.request).subspan(work.begin + 1);
    next_ids.emplace_back(ids.begin(), ids.begin() + (work.last ? work.tokens - 1 : work.tokens));
    if (work.last) next_ids.back().push_back(sampler_.id(drawn++));
  }
  std::vector<PrefillPart> parts;
  for (size_t i = 0; i < plan.prefill.size(); ++i) {
    const PlannedWork& work = plan.prefill[i];
    parts.push_back({&scheduler_.pages(work.request), work.begin, next_ids[i]});
  }
  model::Pass& pass = prefill_.pass();
  return prefill_.run_mtp_pass(0, parts, pass.hidden(), [&](Recorder& recorder) -> Status {
    if (last_rows.empty()) return {};
    HADAL_TRY(pass.record_mtp_head(recorder, 0, last_rows));
    return drafter_.record(recorder, pass.logits().address(), uint32_t(last_rows.size()));
  });
}

bool Engine::take_token(RequestId id, uint32_t drawn, std::vector<EngineToken>& tokens) {
  const Request& request = requests_.at(id);
  EngineToken token{id, drawn};
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
  stats.recordings = decode_.recordings();
  return stats;
}

}  // namespace hadal::runtime
