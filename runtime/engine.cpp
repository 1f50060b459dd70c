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
  result.max_rows = options.max_rows, result.max_requests = options.max_requests;
  result.max_chunk = options.max_chunk;
  result.max_context = context, result.aging_steps = options.aging_steps;
  result.step_seconds = options.step_seconds;
  return result;
}

}  // namespace

Engine::Engine(model::Model& model, const KvCache& cache, PagePool& pages, EngineOptions options,
               PrefillPipeline prefill, DecodePipeline decode, Sampler sampler,
               std::optional<Drafter> drafter)
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
  if (options.draft_depth == 0 || options.draft_depth > kMaxDraftDepth) {
    return error(
        fmt::format("draft_depth must be 1 to {}, got {}", kMaxDraftDepth, options.draft_depth));
  }
  HADAL_ASSIGN(PrefillPipeline prefill,
               PrefillPipeline::create(device, model, cache, {},
                                       std::min(options.max_rows, options.max_chunk)));
  HADAL_ASSIGN(DecodePipeline decode,
               DecodePipeline::create(device, model, cache, options.max_rows));
  HADAL_ASSIGN(Sampler sampler,
               Sampler::create(device, options.max_rows, model.config().vocab_size));
  std::optional<Drafter> drafter;
  if (options.speculate) {
    HADAL_ASSIGN(drafter, Drafter::create(device, model, cache,
                                          {options.draft_source, options.draft_depth,
                                           options.max_rows, options.always_draft}));
  }
  return Engine(model, cache, pages, options, std::move(prefill), std::move(decode),
                std::move(sampler), std::move(drafter));
}

uint32_t Engine::new_tokens(const EngineRequest& request) const {
  return std::min(request.max_new_tokens,
                  model_->options().max_context - uint32_t(request.prompt.size()));
}

Status Engine::check(const EngineRequest& request) const {
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
  if (options_.tokenizer) {
    HADAL_TRY(check_stop_strings(*options_.tokenizer, request.stop));
  } else if (!request.stop.empty()) {
    return error("stop strings need EngineOptions::tokenizer, got none");
  }
  return scheduler_.check(request.prompt.size(), new_tokens(request));
}

Result<RequestId> Engine::add(const EngineRequest& request) {
  HADAL_TRY(lost_);
  HADAL_TRY(check(request));
  std::optional<TextStream> text;
  if (options_.tokenizer) {
    HADAL_ASSIGN(text, TextStream::create(*options_.tokenizer, request.stop));
  }
  const uint32_t tokens = new_tokens(request);
  HADAL_ASSIGN(const RequestId id, scheduler_.add({request.prompt, tokens, request.priority}));
  RequestSampling sampling(request.sampling, request.logprobs, request.mask, request.prompt,
                           model_->config().vocab_size);
  RequestOutput output(id, tokens, request.stop_ids, std::move(text));
  requests_.emplace(id, Request{std::move(sampling), std::move(output), request.deadline,
                                uint32_t(request.prompt.size()) + tokens});
  if (request.deadline) deadlines_.emplace(*request.deadline, id);
  return id;
}

void Engine::cancel(RequestId request) {
  const auto found = requests_.find(request);
  if (found == requests_.end()) return;
  if (const auto& deadline = found->second.deadline) deadlines_.erase({*deadline, request});
  requests_.erase(found);
  scheduler_.remove(request);
  if (drafter_) drafter_->end(request);
}

Result<std::vector<EngineToken>> Engine::step() {
  HADAL_TRY(lost_);
  std::vector<EngineToken> tokens;
  end_late(tokens);
  const StepPlan plan = scheduler_.plan();
  if (!plan.empty()) run_plan(plan, tokens);
  return tokens;
}

void Engine::run_plan(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  uint32_t rows = 0, prefilled = 0;
  double decode_seconds = 0.0, prefill_seconds = 0.0;
  if (!plan.decode.empty()) {
    const Stopwatch watch;
    if (const Status status = run_decode(plan, tokens); status.ok()) {
      for (const PlannedWork& work : plan.decode) rows += work.tokens + work.drafts;
      decode_seconds = watch.seconds();
    } else {
      fail(plan.decode, status, tokens);
    }
  }
  if (!plan.prefill.empty() && lost_.ok()) {
    const Stopwatch watch;
    if (const Status status = run_prefill(plan, tokens); status.ok()) {
      for (const PlannedWork& work : plan.prefill) prefilled += work.tokens;
      prefill_seconds = watch.seconds();
    } else {
      fail(plan.prefill, status, tokens);
    }
  }
  scheduler_.measured(rows, decode_seconds, prefilled, prefill_seconds);
  ++stats_.steps;
  stats_.decoded_rows += rows, stats_.prefilled_tokens += prefilled;
  stats_.decode_seconds += decode_seconds, stats_.prefill_seconds += prefill_seconds;
}

void Engine::fail(std::span<const PlannedWork> work, const Status& status,
                  std::vector<EngineToken>& tokens) {
  for (const PlannedWork& w : work) {
    if (!requests_.count(w.request)) continue;  // ended with a token of this step
    // What the work's pages hold is unknown: nobody may take them over.
    const auto pages = scheduler_.pages(w.request).block_table();
    for (const uint32_t page : pages.subspan(w.begin / kPageTokens)) pages_->forget(page);
    end(w.request, FinishReason::kFailed, status, tokens);
  }
  if (status.code() != Errc::kDeviceLost) return;
  lost_ = {Errc::kDeviceLost,
           "engine: the device is lost; it and all that was created on it must be created again"};
  std::vector<RequestId> others;
  for (const auto& [id, request] : requests_) others.push_back(id);
  std::sort(others.begin(), others.end());
  for (const RequestId id : others) end(id, FinishReason::kFailed, status, tokens);
}

void Engine::end_late(std::vector<EngineToken>& tokens) {
  if (deadlines_.empty()) return;
  const auto now = std::chrono::steady_clock::now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    end(deadlines_.begin()->second, FinishReason::kDeadline, {}, tokens);
  }
}

void Engine::end(RequestId request, FinishReason reason, const Status& status,
                 std::vector<EngineToken>& tokens) {
  tokens.push_back(requests_.at(request).output.end(reason, status));
  stats_.failed_requests += reason == FinishReason::kFailed;
  cancel(request);
}

Status Engine::record_draw(Recorder& recorder, uint32_t first, uint32_t rows) {
  HADAL_TRY(model_->record_head(recorder, first, rows));
  return sampler_.record(recorder, model_->logits().address(), rows);
}

Status Engine::run_decode(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  std::vector<DecodeRow> rows;
  for (const PlannedWork& work : plan.decode) {
    const auto ids = scheduler_.tokens(work.request);
    const auto drafts = drafter_ ? drafter_->drafts(work.request) : std::span<const uint32_t>();
    Request& request = requests_.at(work.request);
    for (uint32_t i = 0; i < work.tokens + work.drafts; ++i) {
      const uint32_t position = work.begin + i, row = uint32_t(rows.size());
      const uint32_t id = i < work.tokens ? ids[position] : drafts[i - work.tokens];
      row_status_[row] = request.sampling.set_row(sampler_, row, ids, drafts, position);
      rows.push_back({&scheduler_.pages(work.request), id, position});
    }
  }
  HADAL_TRY(sampler_.prepare(uint32_t(rows.size())).status());
  const Stopwatch watch;
  HADAL_TRY(decode_.step(rows, [&](Recorder& recorder, const model::DecodeBatch& batch) {
    return record_draw(recorder, 0, batch.tokens);
  }));
  const uint64_t before = stats_.decoded_tokens;
  std::vector<std::pair<PlannedWork, uint32_t>> going_on;  // with the first row
  uint32_t row = 0;
  for (const PlannedWork& work : plan.decode) {
    scheduler_.done(work);
    if (!work.last || take_tokens(work, row + work.tokens - 1, tokens)) {
      going_on.emplace_back(work, row);
    }
    row += work.tokens + work.drafts;
  }
  if (!drafter_) return {};
  const auto requests = uint32_t(plan.decode.size());
  drafter_->measured(requests, watch.seconds(), double(stats_.decoded_tokens - before) / requests);
  std::vector<DraftContext> contexts;
  for (const auto& [work, first] : going_on) {
    contexts.push_back(draft_context(work, first, scheduler_.tokens(work.request)));
  }
  HADAL_TRY(drafter_->decoded(contexts));
  for (const auto& [work, first] : going_on) set_drafts(work.request);
  return {};
}

bool Engine::take_tokens(const PlannedWork& work, uint32_t row, std::vector<EngineToken>& tokens) {
  stats_.verified_drafts += work.drafts;
  const auto drafts = drafter_ ? drafter_->drafts(work.request) : std::span<const uint32_t>();
  for (uint32_t i = 0;; ++i) {
    const bool goes_on = take_token(work.request, row + i, tokens);
    const bool given = tokens.back().has_token;  // every call adds an entry
    stats_.decoded_tokens += given;
    (i == 0 ? stats_.decoded_requests : stats_.accepted_drafts) += given;
    if (!goes_on) return false;
    if (i == work.drafts || drafts[i] != sampler_.id(row + i)) return true;
    scheduler_.accept_draft(work.request);
  }
}

DraftContext Engine::draft_context(const PlannedWork& work, uint32_t row,
                                   std::span<const uint32_t> ids) {
  DraftContext context;
  context.request = work.request, context.pages = &scheduler_.pages(work.request);
  context.ids = ids, context.begin = work.begin, context.hidden_row = row;
  const auto known = uint32_t(ids.size()), length = requests_.at(work.request).length;
  // Rows behind a wrong guess are of no use.
  context.pairs = work.last ? known - 1 - work.begin : work.tokens;
  // The next step gives a token without a guess, and the last token needs no row.
  if (work.last && known < length) context.wanted = length - known - 1;
  return context;
}

Status Engine::run_prefill(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  std::vector<PrefillPart> parts;
  std::vector<uint32_t> last_rows;  // whose hidden state gives a request's first token
  uint32_t rows = 0;
  for (const PlannedWork& work : plan.prefill) {
    const auto ids = scheduler_.tokens(work.request);
    parts.push_back(
        {&scheduler_.pages(work.request), work.begin, ids.subspan(work.begin, work.tokens)});
    rows += work.tokens;
    if (!work.last) continue;
    const uint32_t row = uint32_t(last_rows.size());
    row_status_[row] = requests_.at(work.request)
                           .sampling.set_row(sampler_, row, ids, {}, work.begin + work.tokens - 1);
    last_rows.push_back(rows - 1);
  }
  if (!last_rows.empty()) HADAL_TRY(sampler_.prepare(uint32_t(last_rows.size())).status());
  const auto draw = [&](Recorder& recorder) -> Status {
    if (last_rows.empty()) return {};
    HADAL_TRY(model_->record_head(recorder, last_rows));
    return sampler_.record(recorder, model_->logits().address(), uint32_t(last_rows.size()));
  };
  HADAL_TRY(prefill_.run_pass(parts, draw));
  if (drafter_) HADAL_TRY(draft_behind_prefill(plan));
  uint32_t drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    scheduler_.done(work);
    if (work.last && !take_token(work.request, drawn++, tokens)) continue;
    if (drafter_) set_drafts(work.request);
  }
  return {};
}

// Before others can take the pages over, and also where a request ends with its first token: the
// pages have to hold what the drafter writes, too.
Status Engine::draft_behind_prefill(const StepPlan& plan) {
  std::vector<std::vector<uint32_t>> known;  // tokens with those just drawn
  std::vector<DraftContext> contexts;
  uint32_t row = 0, drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    const auto ids = scheduler_.tokens(work.request);
    known.emplace_back(ids.begin(), ids.end());
    if (work.last) known.back().push_back(sampler_.id(drawn++));
    contexts.push_back(draft_context(work, row, known.back()));
    row += work.tokens;
  }
  return drafter_->prefilled(prefill_, contexts);
}

void Engine::set_drafts(RequestId request) {
  scheduler_.set_drafts(request, uint32_t(drafter_->drafts(request).size()));
}

bool Engine::take_token(RequestId id, uint32_t row, std::vector<EngineToken>& tokens) {
  if (!row_status_[row].ok()) {
    end(id, FinishReason::kFailed, row_status_[row], tokens);
    return false;
  }
  Request& request = requests_.at(id);
  scheduler_.append(id, sampler_.id(row));
  tokens.push_back(request.output.token(sampler_.id(row)));
  tokens.back().logprobs = request.sampling.logprobs(sampler_, row);
  const FinishReason finish = tokens.back().finish;
  if (finish == FinishReason::kNone) return true;
  stats_.failed_requests += finish == FinishReason::kFailed;
  cancel(id);
  return false;
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.scheduler = scheduler_.stats(), stats.pages = pages_->stats();
  return stats;
}

}  // namespace hadal::runtime
