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
               PrefillPipeline prefill, DecodePipeline decode, Draws prefilled, Draws decoded,
               bool two_queues)
    : model_(&model),
      cache_(&cache),
      pages_(&pages),
      options_(options),
      prefill_(std::move(prefill)),
      decode_(std::move(decode)),
      prefilled_(std::move(prefilled)),
      decoded_(std::move(decoded)),
      two_queues_(two_queues),
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
  RecorderOptions of_prefill;
  of_prefill.queue = device.queue_count() - 1;  // decode has the first
  HADAL_ASSIGN(PrefillPipeline prefill,
               PrefillPipeline::create(device, model, cache, of_prefill,
                                       std::min(options.max_rows, options.max_chunk)));
  HADAL_ASSIGN(DecodePipeline decode,
               DecodePipeline::create(device, model, cache, options.max_rows));
  const uint32_t vocab = model.config().vocab_size;
  HADAL_ASSIGN(Draws prefilled, Draws::create(device, options.max_rows, vocab));
  HADAL_ASSIGN(Draws decoded, Draws::create(device, options.max_rows, vocab));
  return Engine(model, cache, pages, options, std::move(prefill), std::move(decode),
                std::move(prefilled), std::move(decoded), of_prefill.queue != 0);
}

Result<Engine::Draws> Engine::Draws::create(Device& device, uint32_t rows, uint32_t vocab) {
  HADAL_ASSIGN(Sampler tokens, Sampler::create(device, rows, vocab));
  HADAL_ASSIGN(Sampler drafts, Sampler::create(device, rows, vocab));
  for (uint32_t row = 0; row < rows; ++row) drafts.set_row(row, {}, 0);  // greedy
  return Draws{std::move(tokens), std::move(drafts)};
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
    (void)decode_.finish();  // nothing may be under way over pages that others get
    (void)prefill_.finish();
    // What the cache holds of the step's sequences is unknown.
    for (const auto& [id, request] : requests_) scheduler_.remove(id);
    requests_.clear();
  }
  stats_.step_seconds += watch.seconds();
  stats_.wait_seconds += prefill_.waited_seconds() + decode_.waited_seconds() - waited;
  return tokens;
}

// Both pipelines are under way at once, and where the device has a queue for each they run at once.
// They meet only in the cache, and there not within a step, so no barrier between queues is
// missing:
//  - Decode writes the rows of generating requests' positions, prefill those of prompts' positions.
//  A
//    page that a sequence writes to is its own alone: what sequences share are whole pages of
//    prompts that were published behind a finished pass, and nobody writes to these again.
//  - So what one pipeline reads, the other's writes of this step are no part of: it reads its own
//    sequences' pages. A prompt's pages are read by decode from the next step on, behind the waits.
//  - Pages for prefill are reserved in begin_prefill(), before the tokens of decode can free any.
Result<std::vector<EngineToken>> Engine::run_plan(const StepPlan& plan) {
  std::vector<EngineToken> tokens;
  uint32_t rows = 0, prefilled = 0;
  double decode_seconds = 0.0, prefill_seconds = 0.0;
  for (const PlannedWork& work : plan.decode) rows += work.tokens + work.drafts;
  for (const PlannedWork& work : plan.prefill) prefilled += work.tokens;
  const bool drafting = options_.speculate && (options_.always_draft || policy_.drafts());
  const Stopwatch watch;
  if (rows) HADAL_TRY(begin_decode(plan, drafting));
  const double begun = watch.seconds();
  std::vector<uint32_t> last_rows;
  if (prefilled) HADAL_TRY(begin_prefill(plan, last_rows));
  if (rows) {
    HADAL_TRY(decode_.finish());
    decode_seconds = watch.seconds();
    take_decoded(plan, drafting, decode_seconds, tokens);
  }
  if (prefilled) {
    HADAL_TRY(finish_prefill(plan, last_rows, tokens));
    prefill_seconds = watch.seconds() - (two_queues_ ? begun : decode_seconds);
  }
  scheduler_.measured(rows, decode_seconds, prefilled, prefill_seconds);
  ++stats_.steps;
  stats_.decoded_rows += rows, stats_.prefilled_tokens += prefilled;
  stats_.decode_seconds += decode_seconds, stats_.prefill_seconds += prefill_seconds;
  return tokens;
}

Status Engine::record_decoded(Recorder& recorder, const model::DecodeBatch& batch, bool drafting) {
  model::Pass& pass = decode_.pass();
  HADAL_TRY(pass.record_head(recorder, 0, batch.tokens));
  HADAL_TRY(decoded_.tokens.record(recorder, pass.logits().address(), batch.tokens));
  if (!drafting) return {};
  recorder.barrier();
  model::DecodeBatch next = batch;
  next.ids = decoded_.tokens.ids();
  HADAL_TRY(pass.record_mtp(recorder, 0, next, cache_->view(), pass.hidden()));
  HADAL_TRY(pass.record_mtp_head(recorder, 0, 0, batch.tokens));
  return decoded_.drafts.record(recorder, pass.logits().address(), batch.tokens);
}

Status Engine::begin_decode(const StepPlan& plan, bool drafting) {
  // Every row is drawn from: a replayed one draws its next token again, which the MTP layer needs.
  std::vector<DecodeRow> rows;
  for (const PlannedWork& work : plan.decode) {
    const auto ids = scheduler_.tokens(work.request);
    SequencePages* pages = &scheduler_.pages(work.request);
    const Request& request = requests_.at(work.request);
    for (uint32_t i = 0; i < work.tokens + work.drafts; ++i) {
      const uint32_t position = work.begin + i;
      decoded_.tokens.set_row(uint32_t(rows.size()), request.sampling, position + 1);
      rows.push_back({pages, position < ids.size() ? ids[position] : *request.draft, position});
    }
  }
  return decode_.begin(rows, /*key=*/drafting,
                       [&](Recorder& recorder, const model::DecodeBatch& batch) {
                         return record_decoded(recorder, batch, drafting);
                       });
}

void Engine::take_decoded(const StepPlan& plan, bool drafting, double seconds,
                          std::vector<EngineToken>& tokens) {
  uint32_t row = 0;
  for (const PlannedWork& work : plan.decode) {
    scheduler_.done(work);
    if (work.last) take_tokens(work, row + work.tokens - 1, drafting, tokens);
    row += work.tokens + work.drafts;
  }
  stats_.decoded_tokens += tokens.size();
  policy_.measured(seconds, double(tokens.size()) / double(plan.decode.size()));
}

void Engine::take_tokens(const PlannedWork& work, uint32_t row, bool drafted,
                         std::vector<EngineToken>& tokens) {
  const std::optional<uint32_t> draft = requests_.at(work.request).draft;
  if (!take_token(work.request, decoded_.tokens.id(row), tokens)) return;
  stats_.verified_drafts += work.drafts;
  if (work.drafts && *draft == decoded_.tokens.id(row)) {
    ++stats_.accepted_drafts;
    scheduler_.accept_draft(work.request);
    if (!take_token(work.request, decoded_.tokens.id(++row), tokens)) return;
  }
  Request& request = requests_.at(work.request);
  request.draft.reset();
  if (drafted) request.draft = decoded_.drafts.id(row);
  scheduler_.set_drafts(work.request, drafted ? 1 : 0);
}

Status Engine::begin_prefill(const StepPlan& plan, std::vector<uint32_t>& last_rows) {
  std::vector<PrefillPart> parts;
  uint32_t rows = 0;
  for (const PlannedWork& work : plan.prefill) {
    const auto ids = scheduler_.tokens(work.request).subspan(work.begin, work.tokens);
    parts.push_back({&scheduler_.pages(work.request), work.begin, ids});
    rows += work.tokens;
    if (!work.last) continue;
    prefilled_.tokens.set_row(uint32_t(last_rows.size()), requests_.at(work.request).sampling,
                              work.begin + work.tokens);
    last_rows.push_back(rows - 1);
  }
  return prefill_.begin_pass(parts, [&](Recorder& recorder) -> Status {
    if (last_rows.empty()) return {};
    model::Pass& pass = prefill_.pass();
    HADAL_TRY(pass.record_head(recorder, last_rows));
    return prefilled_.tokens.record(recorder, pass.logits().address(), uint32_t(last_rows.size()));
  });
}

Status Engine::finish_prefill(const StepPlan& plan, std::span<const uint32_t> last_rows,
                              std::vector<EngineToken>& tokens) {
  HADAL_TRY(prefill_.finish());
  if (options_.speculate) HADAL_TRY(prefill_drafts(plan, last_rows));
  uint32_t drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    scheduler_.done(work);
    if (!work.last) continue;
    const uint32_t row = drawn++;
    if (!take_token(work.request, prefilled_.tokens.id(row), tokens) || !options_.speculate) {
      continue;
    }
    requests_.at(work.request).draft = prefilled_.drafts.id(row);
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
    if (work.last) next_ids.back().push_back(prefilled_.tokens.id(drawn++));
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
    return prefilled_.drafts.record(recorder, pass.logits().address(), uint32_t(last_rows.size()));
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
