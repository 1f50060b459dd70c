#include "hadal/runtime/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
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

// Whether the pool knows no page of a sequence from position `begin` on.
[[maybe_unused]] bool none_known(const PagePool& pool, std::span<const uint32_t> pages,
                                 uint32_t begin) {
  return std::ranges::none_of(pages.subspan(begin / kPageTokens),
                              [&](uint32_t page) { return pool.is_known(page); });
}

SchedulerOptions scheduler_options(const EngineOptions& options, uint32_t context,
                                   uint32_t swap_pages) {
  SchedulerOptions result;
  result.max_rows = options.max_rows, result.max_requests = options.max_requests;
  result.max_chunk = options.max_chunk;
  result.max_context = context, result.aging_steps = options.aging_steps;
  result.step_seconds = options.step_seconds;
  result.swap_pages = swap_pages, result.always_swap = options.always_swap;
  return result;
}

}  // namespace

Engine::Engine(Device& device, model::Model& model, const KvCache& cache, PagePool& pages,
               EngineOptions options, PrefillPipeline prefill, DecodePipeline decode,
               Draws prefilled, Draws decoded, std::optional<Drafter> drafter, bool two_queues,
               PageTransfer transfer, HostPages swap_space)
    : device_(&device),
      model_(&model),
      cache_(&cache),
      pages_(&pages),
      options_(options),
      prefill_(std::move(prefill)),
      decode_(std::move(decode)),
      prefilled_(std::move(prefilled)),
      decoded_(std::move(decoded)),
      drafter_(std::move(drafter)),
      two_queues_(two_queues),
      scheduler_(pages,
                 scheduler_options(options, model.options().max_context, swap_space.pages())),
      transfer_(std::move(transfer)),
      swap_space_(std::move(swap_space)) {}

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
  const RecorderOptions of_decode =
      options.trace ? options.trace->recorder_options() : RecorderOptions();
  RecorderOptions of_prefill = of_decode;
  of_prefill.queue = device.queue_count() - 1;  // decode has the first
  HADAL_ASSIGN(PrefillPipeline prefill,
               PrefillPipeline::create(device, model, cache, of_prefill,
                                       std::min(options.max_rows, options.max_chunk)));
  HADAL_ASSIGN(DecodePipeline decode,
               DecodePipeline::create(device, model, cache, options.max_rows, of_decode));
  prefill.set_trace(options.trace);
  decode.set_trace(options.trace);
  const uint32_t vocab = model.config().vocab_size;
  HADAL_ASSIGN(Draws prefilled, Draws::create(device, options.max_rows, vocab));
  HADAL_ASSIGN(Draws decoded, Draws::create(device, options.max_rows, vocab));
  std::optional<Drafter> drafter;
  if (options.speculate) {
    HADAL_ASSIGN(drafter, Drafter::create(device, model, decode.pass(), cache,
                                          {options.draft_source, options.draft_depth,
                                           options.max_rows, options.always_draft},
                                          of_decode));
    drafter->set_trace(options.trace);
    // Pages that somebody filled who does not draft lack the MTP layer's rows.
    if (drafter->writes_rows()) pages.forget_all();
  }
  HADAL_ASSIGN(PageTransfer transfer, PageTransfer::create(device, cache));
  HostPages swap_space;
  const uint64_t swap_pages =
      std::min<uint64_t>(options.swap_bytes / transfer.page_bytes(), 1u << 30);
  if (swap_pages) {
    HADAL_ASSIGN(swap_space,
                 HostPages::create(device, transfer.page_bytes(), uint32_t(swap_pages)));
  }
  Engine engine(device, model, cache, pages, options, std::move(prefill), std::move(decode),
                std::move(prefilled), std::move(decoded), std::move(drafter), of_prefill.queue != 0,
                std::move(transfer), std::move(swap_space));
  HADAL_TRY(engine.measure_swap());
  return engine;
}

Result<Engine::Draws> Engine::Draws::create(Device& device, uint32_t rows, uint32_t vocab) {
  HADAL_ASSIGN(Sampler tokens, Sampler::create(device, rows, vocab));
  return Draws{std::move(tokens), std::vector<Status>(rows)};
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
  requests_.emplace(id, Request{std::move(sampling),
                                std::move(output),
                                request.deadline,
                                uint32_t(request.prompt.size()) + tokens,
                                {},
                                request.stop_ids,
                                request.stop,
                                request.priority,
                                request.prefill_only});
  if (request.deadline) deadlines_.emplace(*request.deadline, id);
  return id;
}

void Engine::cancel(RequestId request) {
  exported_.erase(request);
  const auto found = requests_.find(request);
  if (found == requests_.end()) return;
  if (const auto& deadline = found->second.deadline) deadlines_.erase({*deadline, request});
  requests_.erase(found);
  scheduler_.remove(request);
  if (drafter_) drafter_->end(request);
}

StepPlan Engine::make_plan() {
  const Trace::Span span(options_.trace, "plan");
  return scheduler_.plan();
}

Result<std::vector<EngineToken>> Engine::step() {
  HADAL_TRY(lost_);
  const Trace::Span span(options_.trace, "step");
  const Stopwatch watch;
  const double waited = waited_seconds();
  std::vector<EngineToken> tokens;
  end_late(tokens);
  StepPlan plan = make_plan();
  if (plan.empty()) return tokens;
  run_plan(std::move(plan), tokens);
  stats_.step_seconds += watch.seconds();
  stats_.wait_seconds += waited_seconds() - waited;
  return tokens;
}

double Engine::waited_seconds() const {
  return prefill_.waited_seconds() + decode_.waited_seconds() +
         (drafter_ ? drafter_->waited_seconds() : 0.0);
}

// Both pipelines are under way at once, and where the device has a queue for each they run at once.
// They meet only in the cache, and there not within a step, so no barrier between queues is
// missing:
//  - Decode writes the rows of generating requests' positions, prefill those of prompts' positions.
//    A page that a sequence writes to is its own alone: what sequences share are whole pages of
//    prompts that were published behind a finished pass, and nobody writes to these again.
//  - So what one pipeline reads, the other's writes of this step are no part of: it reads its own
//    sequences' pages. A prompt's pages are read by decode from the next step on, behind the waits.
//  - Pages for prefill are reserved in begin_prefill(), before the tokens of decode can free any,
//    and none are given out before both have finished, whatever fails.
// Guesses are made when both have finished: on one queue those behind decode would wait for
// prefill, and what they cost is measured.
void Engine::run_plan(StepPlan plan, std::vector<EngineToken>& tokens) {
  uint32_t rows = 0, prefilled = 0;
  double decode_seconds = 0.0, prefill_seconds = 0.0;
  if (plan.swaps()) {
    if (const Status status = run_swaps(plan); !status.ok()) {
      fail_swaps(plan, status, tokens);
      if (!lost_.ok()) return;  // every request has ended
      std::erase_if(plan.prefill,
                    [&](const PlannedWork& work) { return !requests_.contains(work.request); });
    }
  }
  const Stopwatch watch;
  Status decode = plan.decode.empty() ? Status() : begin_decode(plan);
  const double begun = watch.seconds();
  std::vector<uint32_t> last_rows;
  RowsOfWork going_on;
  Status prefill = plan.prefill.empty() ? Status() : begin_prefill(plan, last_rows);
  if (decode.ok()) decode = decode_.finish();
  if (!decode.ok()) {
    if (prefill.ok()) prefill = prefill_.finish();  // its pages stay untouched until then
    fail(plan.decode, decode, tokens);
  } else if (!plan.decode.empty()) {
    for (const PlannedWork& work : plan.decode) rows += work.tokens + work.drafts;
    decode_seconds = watch.seconds();
    going_on = take_decoded(plan, decode_seconds, tokens);
  }
  if (!lost_.ok()) return;  // every request has ended
  if (prefill.ok()) prefill = prefill_.finish();
  if (!prefill.ok()) fail(plan.prefill, prefill, tokens);
  if (!lost_.ok()) return;
  const double finished = watch.seconds();
  if (const Status status = draft_behind_decode(going_on); !status.ok()) {
    fail(plan.decode, status, tokens);
    if (!lost_.ok()) return;
  }
  const double drafting = plan.decode.empty() ? 0.0 : watch.seconds() - finished;
  if (prefill.ok() && !plan.prefill.empty()) {
    if (const Status status = take_prefilled(plan, tokens); status.ok()) {
      for (const PlannedWork& work : plan.prefill) prefilled += work.tokens;
      prefill_seconds = watch.seconds() - (two_queues_ ? begun : decode_seconds) - drafting;
    } else {
      fail(plan.prefill, status, tokens);
    }
  }
  decode_seconds += drafting;
  scheduler_.measured(rows, decode_seconds, prefilled, prefill_seconds);
  ++stats_.steps;
  stats_.decoded_rows += rows, stats_.prefilled_tokens += prefilled;
  stats_.decode_seconds += decode_seconds, stats_.prefill_seconds += prefill_seconds;
}

void Engine::fail(std::span<const PlannedWork> work, const Status& status,
                  std::vector<EngineToken>& tokens) {
  for (const PlannedWork& w : work) {
    if (!requests_.contains(w.request)) continue;  // ended with a token of this step
    // What the work's pages hold is unknown, and nobody takes them over: the pool knows a page from
    // Scheduler::done() on, which follows when all that writes the prompt's rows has finished.
    assert(none_known(*pages_, scheduler_.pages(w.request).block_table(), w.begin));
    end(w.request, FinishReason::kFailed, status, tokens);
  }
  end_all_if_lost(status, tokens);
}

void Engine::end_all_if_lost(const Status& status, std::vector<EngineToken>& tokens) {
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

Status Engine::begin_decode(const StepPlan& plan) {
  const Trace::Span span(options_.trace, "begin decode");
  // Every row is drawn from: a replayed one draws its next token again.
  std::vector<DecodeRow> rows;
  for (const PlannedWork& work : plan.decode) {
    const auto ids = scheduler_.tokens(work.request);
    const auto drafts = drafter_ ? drafter_->drafts(work.request) : std::span<const uint32_t>();
    SequencePages* pages = &scheduler_.pages(work.request);
    Request& request = requests_.at(work.request);
    for (uint32_t i = 0; i < work.tokens + work.drafts; ++i) {
      const uint32_t position = work.begin + i, row = uint32_t(rows.size());
      const uint32_t id = i < work.tokens ? ids[position] : drafts[i - work.tokens];
      decoded_.row_status[row] =
          request.sampling.set_row(decoded_.tokens, row, ids, drafts, position);
      rows.push_back({pages, id, position});
    }
  }
  HADAL_ASSIGN(const uint64_t prepared, decoded_.tokens.prepare(uint32_t(rows.size())));
  return decode_.begin(rows, /*key=*/prepared,
                       [&](Recorder& recorder, const model::DecodeBatch& batch) {
                         return record_decoded(recorder, batch.tokens);
                       });
}

Status Engine::record_decoded(Recorder& recorder, uint32_t rows) {
  model::Pass& pass = decode_.pass();
  HADAL_TRY(pass.record_head(recorder, 0, rows));
  return decoded_.tokens.record(recorder, pass.logits().address(), rows);
}

Engine::RowsOfWork Engine::take_decoded(const StepPlan& plan, double seconds,
                                        std::vector<EngineToken>& tokens) {
  const Trace::Span span(options_.trace, "take decoded");
  RowsOfWork going_on;
  const uint64_t before = stats_.decoded_tokens;
  uint32_t row = 0;
  for (const PlannedWork& work : plan.decode) {
    scheduler_.done(work);
    if (!work.last || take_tokens(work, row + work.tokens - 1, tokens)) {
      going_on.emplace_back(work, row);
    }
    row += work.tokens + work.drafts;
  }
  if (drafter_) {
    const auto requests = uint32_t(plan.decode.size());
    drafter_->measured(requests, seconds, double(stats_.decoded_tokens - before) / requests);
  }
  return going_on;
}

Status Engine::begin_prefill(const StepPlan& plan, std::vector<uint32_t>& last_rows) {
  const Trace::Span span(options_.trace, "begin prefill");
  std::vector<PrefillPart> parts;
  uint32_t rows = 0;
  for (const PlannedWork& work : plan.prefill) {
    const auto ids = scheduler_.tokens(work.request);
    parts.push_back(
        {&scheduler_.pages(work.request), work.begin, ids.subspan(work.begin, work.tokens)});
    rows += work.tokens;
    if (!work.last) continue;
    const uint32_t row = uint32_t(last_rows.size());
    prefilled_.row_status[row] =
        requests_.at(work.request)
            .sampling.set_row(prefilled_.tokens, row, ids, {}, work.begin + work.tokens - 1);
    last_rows.push_back(rows - 1);
  }
  HADAL_TRY(prefilled_.tokens.prepare(uint32_t(last_rows.size())).status());
  return prefill_.begin_pass(
      parts, [&](Recorder& recorder) { return record_prefilled(recorder, last_rows); });
}

Status Engine::record_prefilled(Recorder& recorder, std::span<const uint32_t> rows) {
  if (rows.empty()) return {};
  model::Pass& pass = prefill_.pass();
  HADAL_TRY(pass.record_head(recorder, rows));
  return prefilled_.tokens.record(recorder, pass.logits().address(), uint32_t(rows.size()));
}

Status Engine::take_prefilled(const StepPlan& plan, std::vector<EngineToken>& tokens) {
  const Trace::Span span(options_.trace, "take prefilled");
  if (drafter_) HADAL_TRY(draft_behind_prefill(plan));
  uint32_t drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    scheduler_.done(work);
    if (work.last && !take_token(work.request, prefilled_, drawn++, tokens)) continue;
    if (drafter_) set_drafts(work.request);
    if (work.last && requests_.at(work.request).prefill_only) hand_over(work.request, tokens);
    if (!lost_.ok()) return {};  // every request has ended
  }
  return {};
}

bool Engine::take_token(RequestId id, const Draws& draws, uint32_t row,
                        std::vector<EngineToken>& tokens) {
  if (!draws.row_status[row].ok()) {
    end(id, FinishReason::kFailed, draws.row_status[row], tokens);
    return false;
  }
  Request& request = requests_.at(id);
  const uint32_t drawn = draws.tokens.id(row);
  scheduler_.append(id, drawn);
  tokens.push_back(request.output.token(drawn));
  tokens.back().logprobs = request.sampling.logprobs(draws.tokens, row);
  const FinishReason finish = tokens.back().finish;
  if (finish == FinishReason::kNone) return true;
  stats_.failed_requests += finish == FinishReason::kFailed;
  cancel(id);
  return false;
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.scheduler = scheduler_.stats(), stats.pages = pages_->stats();
  stats.recordings = decode_.recordings();
  if (drafter_) stats.draft_recordings = drafter_->recordings();
  return stats;
}

}  // namespace hadal::runtime
