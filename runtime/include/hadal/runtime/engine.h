// Many requests at once over one model and cache: add requests, step, read tokens. No thread of its
// own; any host loop can drive it.
//
// A step runs one decode batch (a row of each request that is generating) and then one prefill pass
// over chunks of several requests, within the scheduler's budget; the pipelines are under way at
// once, on two queues where the device has them. A request's tokens do not depend on who shares its
// steps, on chunks, on preemption or on taken-over prefixes: each row's bits depend on its sequence
// only, prompt positions are always prefilled and generated ones always decoded
// (hadal/runtime/scheduler.h), and a draw depends on the request's seed, the position and the
// tokens before it. The same holds for log-probabilities, to the bit.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hadal/runtime/decode_pipeline.h"
#include "hadal/runtime/drafter.h"
#include "hadal/runtime/engine_token.h"
#include "hadal/runtime/page_transfer.h"
#include "hadal/runtime/prefill_pipeline.h"
#include "hadal/runtime/request_output.h"
#include "hadal/runtime/request_sampling.h"
#include "hadal/runtime/sampler.h"
#include "hadal/runtime/scheduler.h"
#include "hadal/runtime/sequence_state.h"
#include "hadal/runtime/trace.h"
#include "hadal/runtime/warm_up.h"

namespace hadal::runtime {

struct EngineOptions {
  uint32_t max_rows = 32;     // rows of a decode step, guesses included; at most the model's
                              // max_decode_rows and max_logit_rows
  uint32_t max_requests = 0;  // that generate at once, the other rows are for guesses; 0: max_rows
  uint32_t max_chunk = 512;   // prefill tokens per step; at most the model's max_tokens
  uint32_t aging_steps = 512;
  double step_seconds = 0.1;  // SchedulerOptions
  bool speculate = false;     // compute guesses of the next tokens beside a request's own row
  DraftSource draft_source = DraftSource::kMtp;  // of the guesses (drafter.h)
  uint32_t draft_depth = 1;   // guesses of a request at most, 1 to kMaxDraftDepth
  bool always_draft = false;  // also where measured step times say that it does not pay
  // Host memory for the pages of preempted requests, allocated at once; 0: their rows are dropped
  // and computed again. Kept are those that measured times say are dearer to compute
  // (hadal/runtime/swap.h).
  uint64_t swap_bytes = 0;
  bool always_swap = false;                     // also where computing again is quicker
  const model::Tokenizer* tokenizer = nullptr;  // for EngineToken::text and EngineRequest::stop
  Trace* trace = nullptr;                       // where what the engine does goes; must outlive it
};

struct EngineRequest {
  std::vector<uint32_t> prompt;
  uint32_t max_new_tokens = 200;  // fewer when the context ends
  SamplingOptions sampling;
  std::optional<uint32_t> logprobs;  // report log-probabilities: of the token, and of that many of
                                     // the most probable ones, at most kMaxTopLogprobs
  TokenMask mask;  // which tokens may follow; one that throws or allows none ends the request
                   // with kFailed
  std::vector<uint32_t> stop_ids;  // generation ends behind one of these (it is reported too)
  // Or behind the token that completes one of these; the text ends in front of it. Needs a
  // tokenizer. Of several the one that is complete first counts, then the longest (text_stream.h).
  std::vector<std::string> stop;
  // Past it the request ends between steps with kDeadline, whether it has begun or not.
  std::optional<std::chrono::steady_clock::time_point> deadline;
  int32_t priority = 0;  // higher goes first
  // Prefill and the first token only: unless that one ends it, the request ends with kExported and
  // export_request gives its state, once.
  bool prefill_only = false;
};

struct EngineStats {
  SchedulerStats scheduler;
  PagePoolStats pages;
  uint64_t steps = 0, prefilled_tokens = 0, decoded_rows = 0;
  uint64_t decoded_tokens = 0;  // given by decode steps
  // Of decode steps: requests that they gave a token to (summed over the steps), rows that were
  // guesses, and the right ones of them. decoded_tokens = decoded_requests + accepted_drafts.
  uint64_t decoded_requests = 0, verified_drafts = 0, accepted_drafts = 0;
  uint64_t failed_requests = 0;
  double prefill_seconds = 0.0, decode_seconds = 0.0;  // host time around the pipelines
  double step_seconds = 0.0;                           // host time of all steps
  double wait_seconds = 0.0;                           // of which inside waits for the device
  RecordingStats recordings;                           // of decode steps
  RecordingStats draft_recordings;                     // of the MTP layer's guesses behind them
};

class Engine {
 public:
  // Model, cache and pool must outlive the engine; the pool is its alone. One that drafts with the
  // MTP layer forgets what the pool's pages held before. Not thread-safe. Errors:
  // kInvalidArgument for options beyond the model's; kUnsupported for speculation without an MTP
  // layer.
  [[nodiscard]] static Result<Engine> create(Device& device, model::Model& model,
                                             const KvCache& cache, PagePool& pages,
                                             const EngineOptions& options);

  // Makes the pipelines of every pass that requests may need, of guesses and of sampling, on
  // options.threads; then, where the pool has free pages for it, runs passes of few tokens once and
  // forgets them: some drivers compile at the first dispatch. Between steps; requests do not
  // change. Errors: kCancelled, those of the device.
  [[nodiscard]] Status warm_up(const WarmUp& options);

  // Errors: kInvalidArgument naming what is out of range (empty prompt, an id outside the
  // vocabulary, a prompt as long as the context, sampling, logprobs, stop strings);
  // kOutOfDeviceMemory when the cache could never hold the request; kDeviceLost as for step().
  [[nodiscard]] Result<RequestId> add(const EngineRequest& request);
  // What add() would say, but kDeviceLost. Thread-safe, also beside a step.
  [[nodiscard]] Status check(const EngineRequest& request) const;
  // Between steps, in whatever state the request is; unknown and ended ones are ignored.
  void cancel(RequestId request);

  // The request as bytes (hadal/runtime/sequence_state.h), between steps, in whatever state it is:
  // the rows that it has by now go along, its deadline and mask do not. It goes on here until it is
  // cancelled. One that ended with kExported is forgotten by this call. Errors: kInvalidArgument
  // for an unknown or ended request; those of the device.
  [[nodiscard]] Result<std::vector<std::byte>> export_request(RequestId request);
  // Goes on with a request that was exported, here or elsewhere: its next tokens are those that it
  // would have got there, if both devices compute the same bits. step() reports the tokens behind
  // those of the state. Its rows wait in host memory until the scheduler admits it. Errors: those
  // of parse_sequence_state and check_same_cache, and of add for what the state says;
  // kInvalidArgument without a `mask` where the request had one, which no state can hold, and with
  // one where it had none: other tokens would follow.
  [[nodiscard]] Result<RequestId> import_request(std::span<const std::byte> state,
                                                 TokenMask mask = {});
  // What a state must fit.
  [[nodiscard]] CacheIdentity cache_identity() const;

  // Runs one step and waits for it: the tokens that it gave, in the order of its rows. Nothing left
  // to do gives none. A failure (out of device memory, say) ends the requests of the submission
  // that failed, each with an entry of kFailed; everybody else's go on, and so does the engine.
  // Errors: kDeviceLost from the step after the one in which the device was lost, which ended every
  // request with kFailed: the device and all that was created on it must be created again.
  [[nodiscard]] Result<std::vector<EngineToken>> step();
  [[nodiscard]] bool idle() const { return requests_.empty(); }
  [[nodiscard]] EngineStats stats() const;
  [[nodiscard]] PrefillPipeline& prefill() { return prefill_; }
  [[nodiscard]] DecodePipeline& decode() { return decode_; }

 private:
  struct Request {
    RequestSampling sampling;
    RequestOutput output;
    std::optional<std::chrono::steady_clock::time_point> deadline;
    uint32_t length = 0;  // prompt and new tokens
    HostPages imported;   // its rows, until they are in the cache
    // For its state, as it was asked for:
    std::vector<uint32_t> stop_ids;
    std::vector<std::string> stop;
    int32_t priority = 0;
    bool prefill_only = false;
  };
  // What a pipeline's rows are drawn by: each has its own, as both are under way at once.
  struct Draws {
    Sampler tokens;
    std::vector<Status> row_status;  // of what the rows of `tokens` were set to
    [[nodiscard]] static Result<Draws> create(Device& device, uint32_t rows, uint32_t vocab);
  };
  Engine(Device& device, model::Model& model, const KvCache& cache, PagePool& pages,
         EngineOptions options, PrefillPipeline prefill, DecodePipeline decode, Draws prefilled,
         Draws decoded, std::optional<Drafter> drafter, bool two_queues, PageTransfer transfer,
         HostPages swap_space);
  // Times a page's way to the swap space and back, so that the first preemption can compare.
  [[nodiscard]] Status measure_swap();
  [[nodiscard]] Status run_swaps(const StepPlan& plan);
  // The rows of a request in host memory, for export.
  [[nodiscard]] Status copy_rows(RequestId request, const CacheIdentity& identity,
                                 std::span<std::byte> rows);
  // A prefill-only request has its first token: its state waits for export_request.
  void hand_over(RequestId request, std::vector<EngineToken>& tokens);
  // What import_request asks of a state beyond its form.
  [[nodiscard]] Status check_state(const SequenceState& state, bool has_mask) const;
  [[nodiscard]] Result<HostPages> imported_rows(const SequenceState& state);
  [[nodiscard]] double waited_seconds() const;
  [[nodiscard]] StepPlan make_plan();
  void run_plan(StepPlan plan, std::vector<EngineToken>& tokens);
  // Ends the requests of work that could not be done, and all of them if the device is lost.
  void fail(std::span<const PlannedWork> work, const Status& status,
            std::vector<EngineToken>& tokens);
  void fail_swaps(const StepPlan& plan, const Status& status, std::vector<EngineToken>& tokens);
  void end_all_if_lost(const Status& status, std::vector<EngineToken>& tokens);
  [[nodiscard]] uint32_t new_tokens(const EngineRequest& request) const;
  void end_late(std::vector<EngineToken>& tokens);
  // Ends a request without a token.
  void end(RequestId request, FinishReason reason, const Status& status,
           std::vector<EngineToken>& tokens);
  // What warm_up runs: passes over token 0 at the first positions of `pages`, with draws and
  // guesses.
  [[nodiscard]] Status run_passes_once(const WarmUp& options);
  // With one token of `other` beside them, if there is one.
  [[nodiscard]] Status prefill_once(SequencePages& pages, uint32_t tokens, SequencePages* other);
  [[nodiscard]] Status decode_once(SequencePages& pages, uint32_t count, uint32_t first_position);
  [[nodiscard]] Status begin_decode(const StepPlan& plan);
  // Heads and draws behind a pass: of its first rows, of these rows.
  [[nodiscard]] Status record_decoded(Recorder& recorder, uint32_t rows);
  [[nodiscard]] Status record_prefilled(Recorder& recorder, std::span<const uint32_t> rows);
  // Work of requests that go on, with its first row.
  using RowsOfWork = std::vector<std::pair<PlannedWork, uint32_t>>;
  [[nodiscard]] RowsOfWork take_decoded(const StepPlan& plan, double seconds,
                                        std::vector<EngineToken>& tokens);
  // Appends to `last_rows` those whose hidden state gives a request's first token.
  [[nodiscard]] Status begin_prefill(const StepPlan& plan, std::vector<uint32_t>& last_rows);
  [[nodiscard]] Status take_prefilled(const StepPlan& plan, std::vector<EngineToken>& tokens);
  // Guesses of what follows, behind passes that have finished.
  [[nodiscard]] Status draft_behind_decode(const RowsOfWork& going_on);
  [[nodiscard]] Status draft_behind_prefill(const StepPlan& plan);
  void set_drafts(RequestId request);
  // What `work` computed of a request with tokens `ids`, its rows' hidden states from `row` on.
  [[nodiscard]] DraftContext draft_context(const PlannedWork& work, uint32_t row,
                                           std::span<const uint32_t> ids);
  // The tokens of a request's rows: its own from `row`, and those of its right drafts. False when
  // it has ended.
  [[nodiscard]] bool take_tokens(const PlannedWork& work, uint32_t row,
                                 std::vector<EngineToken>& tokens);
  // The token that was drawn in `row`. False when the request has ended.
  [[nodiscard]] bool take_token(RequestId request, const Draws& draws, uint32_t row,
                                std::vector<EngineToken>& tokens);

  Device* device_;
  model::Model* model_;
  const KvCache* cache_;
  PagePool* pages_;
  EngineOptions options_;
  PrefillPipeline prefill_;
  DecodePipeline decode_;
  Draws prefilled_, decoded_;
  std::optional<Drafter> drafter_;  // with options_.speculate
  bool two_queues_;                 // or one, which runs decode first
  Scheduler scheduler_;
  PageTransfer transfer_;
  HostPages swap_space_;
  std::unordered_map<RequestId, Request> requests_;
  std::unordered_map<RequestId, std::vector<std::byte>> exported_;
  std::set<std::pair<std::chrono::steady_clock::time_point, RequestId>> deadlines_;
  Status lost_;  // not ok: the device is lost
  EngineStats stats_;
};

}  // namespace hadal::runtime
