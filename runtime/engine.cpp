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

SchedulerOptions scheduler_options(const EngineOptions& options, uint32_t context,
                                   uint32_t swap_pages) {
  SchedulerOptions result;
  result.max_rows = options.max_rows, result.max_chunk = options.max_chunk;
  result.max_context = context, result.aging_steps = options.aging_steps;
  result.step_seconds = options.step_seconds;
  result.swap_pages = swap_pages, result.always_swap = options.always_swap;
  return result;
}

}  // namespace

Engine::Engine(Device& device, model::Model& model, const KvCache& cache, PagePool& pages,
               EngineOptions options, PrefillPipeline prefill, DecodePipeline decode,
               Draws prefilled, Draws decoded, bool two_queues, PageTransfer transfer,
               HostPages swap_space)
    : device_(&device),
      model_(&model),
      cache_(&cache),
      pages_(&pages),
      options_(options),
      prefill_(std::move(prefill)),
      decode_(std::move(decode)),
      prefilled_(std::move(prefilled)),
      decoded_(std::move(decoded)),
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
  if (options.speculate && model.weights().mtp.empty()) {
    return Status(
        Errc::kUnsupported,
        "engine: the checkpoint has no MTP layer to speculate with, or it was not loaded");
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
  HADAL_ASSIGN(PageTransfer transfer, PageTransfer::create(device, cache));
  HostPages swap_space;
  const uint64_t swap_pages =
      std::min<uint64_t>(options.swap_bytes / transfer.page_bytes(), 1u << 30);
  if (swap_pages) {
    HADAL_ASSIGN(swap_space,
                 HostPages::create(device, transfer.page_bytes(), uint32_t(swap_pages)));
  }
  Engine engine(device, model, cache, pages, options, std::move(prefill), std::move(decode),
                std::move(prefilled), std::move(decoded), of_prefill.queue != 0,
                std::move(transfer), std::move(swap_space));
  HADAL_TRY(engine.measure_swap());
  return engine;
}

Result<Engine::Draws> Engine::Draws::create(Device& device, uint32_t rows, uint32_t vocab) {
  HADAL_ASSIGN(Sampler tokens, Sampler::create(device, rows, vocab));
  HADAL_ASSIGN(Sampler drafts, Sampler::create(device, rows, vocab));
  for (uint32_t row = 0; row < rows; ++row) drafts.set_row(row, {}, 0);  // greedy
  return Draws{std::move(tokens), std::move(drafts), std::vector<Status>(rows)};
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
                                {},
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
}

StepPlan Engine::make_plan() {
  const Trace::Span span(options_.trace, "plan");
  return scheduler_.plan();
}

Result<std::vector<EngineToken>> Engine::step() {
  HADAL_TRY(lost_);
  const Trace::Span span(options_.trace, "step");
  const Stopwatch watch;
  const double waited = prefill_.waited_seconds() + decode_.waited_seconds();
  std::vector<EngineToken> tokens;
  end_late(tokens);
  StepPlan plan = make_plan();
  if (plan.empty()) return tokens;
  run_plan(std::move(plan), tokens);
  stats_.step_seconds += watch.seconds();
  stats_.wait_seconds += prefill_.waited_seconds() + decode_.waited_seconds() - waited;
  return tokens;
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
  const bool drafting = options_.speculate && (options_.always_draft || policy_.drafts());
  const Stopwatch watch;
  Status decode = plan.decode.empty() ? Status() : begin_decode(plan, drafting);
  const double begun = watch.seconds();
  std::vector<uint32_t> last_rows;
  Status prefill = plan.prefill.empty() ? Status() : begin_prefill(plan, last_rows);
  if (decode.ok()) decode = decode_.finish();
  if (!decode.ok()) {
    if (prefill.ok()) prefill = prefill_.finish();  // its pages stay untouched until then
    fail(plan.decode, decode, tokens);
  } else if (!plan.decode.empty()) {
    for (const PlannedWork& work : plan.decode) rows += work.tokens + work.drafts;
    decode_seconds = watch.seconds();
    take_decoded(plan, drafting, decode_seconds, tokens);
  }
  if (!lost_.ok()) return;  // every request has ended
  if (prefill.ok() && !plan.prefill.empty()) prefill = finish_prefill(plan, last_rows, tokens);
  if (!prefill.ok()) {
    fail(plan.prefill, prefill, tokens);
  } else if (!plan.prefill.empty()) {
    for (const PlannedWork& work : plan.prefill) prefilled += work.tokens;
    prefill_seconds = watch.seconds() - (two_queues_ ? begun : decode_seconds);
  }
  scheduler_.measured(rows, decode_seconds, prefilled, prefill_seconds);
  ++stats_.steps;
  stats_.decoded_rows += rows, stats_.prefilled_tokens += prefilled;
  stats_.decode_seconds += decode_seconds, stats_.prefill_seconds += prefill_seconds;
}

void Engine::fail(std::span<const PlannedWork> work, const Status& status,
                  std::vector<EngineToken>& tokens) {
  for (const PlannedWork& w : work) {
    // What the work's pages hold is unknown: nobody may take them over.
    const auto pages = scheduler_.pages(w.request).block_table();
    for (const uint32_t page : pages.subspan(w.begin / kPageTokens)) pages_->forget(page);
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
  const Trace::Span span(options_.trace, "begin decode");
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
      decoded_.row_status[row] =
          request.sampling.set_row(decoded_.tokens, row, ids, drafts, position);
      rows.push_back({pages, position < ids.size() ? ids[position] : *request.draft, position});
    }
  }
  HADAL_ASSIGN(const uint64_t prepared, decoded_.tokens.prepare(uint32_t(rows.size())));
  return decode_.begin(rows, /*key=*/prepared * 2 + drafting,
                       [&](Recorder& recorder, const model::DecodeBatch& batch) {
                         return record_decoded(recorder, batch, drafting);
                       });
}

void Engine::take_decoded(const StepPlan& plan, bool drafting, double seconds,
                          std::vector<EngineToken>& tokens) {
  const Trace::Span span(options_.trace, "take decoded");
  const size_t before = tokens.size();
  uint32_t row = 0;
  for (const PlannedWork& work : plan.decode) {
    scheduler_.done(work);
    if (work.last) take_tokens(work, row + work.tokens - 1, drafting, tokens);
    row += work.tokens + work.drafts;
  }
  const auto given = std::count_if(tokens.begin() + ptrdiff_t(before), tokens.end(),
                                   [](const EngineToken& token) { return token.has_token; });
  stats_.decoded_tokens += uint64_t(given);
  policy_.measured(seconds, double(given) / double(plan.decode.size()));
}

void Engine::take_tokens(const PlannedWork& work, uint32_t row, bool drafted,
                         std::vector<EngineToken>& tokens) {
  const std::optional<uint32_t> draft = requests_.at(work.request).draft;
  if (!take_token(work.request, decoded_, row, tokens)) return;
  stats_.verified_drafts += work.drafts;
  if (work.drafts && *draft == decoded_.tokens.id(row)) {
    ++stats_.accepted_drafts;
    scheduler_.accept_draft(work.request);
    if (!take_token(work.request, decoded_, ++row, tokens)) return;
  }
  Request& request = requests_.at(work.request);
  request.draft.reset();
  if (drafted) request.draft = decoded_.drafts.id(row);
  scheduler_.set_drafts(work.request, drafted ? 1 : 0);
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
  return prefill_.begin_pass(parts, [&](Recorder& recorder) -> Status {
    if (last_rows.empty()) return {};
    model::Pass& pass = prefill_.pass();
    HADAL_TRY(pass.record_head(recorder, last_rows));
    return prefilled_.tokens.record(recorder, pass.logits().address(), uint32_t(last_rows.size()));
  });
}

Status Engine::finish_prefill(const StepPlan& plan, std::span<const uint32_t> last_rows,
                              std::vector<EngineToken>& tokens) {
  const Trace::Span span(options_.trace, "finish prefill");
  HADAL_TRY(prefill_.finish());
  if (options_.speculate) HADAL_TRY(prefill_drafts(plan, last_rows));
  uint32_t drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    scheduler_.done(work);
    if (!work.last) continue;
    const uint32_t row = drawn++;
    if (!take_token(work.request, prefilled_, row, tokens)) continue;
    if (options_.speculate) {
      requests_.at(work.request).draft = prefilled_.drafts.id(row);
      scheduler_.set_drafts(work.request, 1);
    }
    if (requests_.at(work.request).prefill_only) hand_over(work.request, tokens);
    if (!lost_.ok()) return {};  // every request has ended
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
  return stats;
}

}  // namespace hadal::runtime
