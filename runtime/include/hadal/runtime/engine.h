// Many requests at once over one model and cache: add requests, step, read tokens. No thread of its
// own; any host loop can drive it.
//
// A step runs one decode batch (a row of each request that is generating) and then one prefill pass
// over chunks of several requests, within the scheduler's budget. A request's tokens do not depend
// on who shares its steps, on chunks, on preemption or on taken-over prefixes: each row's bits
// depend on its sequence only, prompt positions are always prefilled and generated ones always
// decoded (hadal/runtime/scheduler.h), and a draw depends on the request's seed, the position and
// the tokens before it. The same holds for log-probabilities, to the bit.
#pragma once

#include <chrono>
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
#include "hadal/runtime/prefill_pipeline.h"
#include "hadal/runtime/request_output.h"
#include "hadal/runtime/request_sampling.h"
#include "hadal/runtime/sampler.h"
#include "hadal/runtime/scheduler.h"

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
  const model::Tokenizer* tokenizer = nullptr;  // for EngineToken::text and EngineRequest::stop
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
};

class Engine {
 public:
  // Model, cache and pool must outlive the engine; the pool is its alone. Not thread-safe. Errors:
  // kInvalidArgument for options beyond the model's; kUnsupported for speculation without an MTP
  // layer.
  [[nodiscard]] static Result<Engine> create(Device& device, model::Model& model,
                                             const KvCache& cache, PagePool& pages,
                                             const EngineOptions& options);

  // Errors: kInvalidArgument naming what is out of range (empty prompt, an id outside the
  // vocabulary, a prompt as long as the context, sampling, logprobs, stop strings);
  // kOutOfDeviceMemory when the cache could never hold the request; kDeviceLost as for step().
  [[nodiscard]] Result<RequestId> add(const EngineRequest& request);
  // What add() would say, but kDeviceLost. Thread-safe, also beside a step.
  [[nodiscard]] Status check(const EngineRequest& request) const;
  // Between steps, in whatever state the request is; unknown and ended ones are ignored.
  void cancel(RequestId request);

  // Runs one step and waits for it: the tokens that it gave, in the order of its rows. Nothing left
  // to do gives none. A failure (out of device memory, say) ends the requests of the submission
  // that failed, each with an entry of kFailed; everybody else's go on, and so does the engine.
  // Errors: kDeviceLost from the step after the one in which the device was lost, which ended every
  // request with kFailed: the device and all that was created on it must be created again.
  [[nodiscard]] Result<std::vector<EngineToken>> step();
  [[nodiscard]] bool idle() const { return requests_.empty(); }
  [[nodiscard]] EngineStats stats() const;

 private:
  struct Request {
    RequestSampling sampling;
    RequestOutput output;
    std::optional<std::chrono::steady_clock::time_point> deadline;
    uint32_t length = 0;  // prompt and new tokens
  };
  Engine(model::Model& model, const KvCache& cache, PagePool& pages, EngineOptions options,
         PrefillPipeline prefill, DecodePipeline decode, Sampler sampler,
         std::optional<Drafter> drafter);
  void run_plan(const StepPlan& plan, std::vector<EngineToken>& tokens);
  // Ends the requests of work that could not be done, and all of them if the device is lost.
  void fail(std::span<const PlannedWork> work, const Status& status,
            std::vector<EngineToken>& tokens);
  [[nodiscard]] uint32_t new_tokens(const EngineRequest& request) const;
  void end_late(std::vector<EngineToken>& tokens);
  // Ends a request without a token.
  void end(RequestId request, FinishReason reason, const Status& status,
           std::vector<EngineToken>& tokens);
  [[nodiscard]] Status run_decode(const StepPlan& plan, std::vector<EngineToken>& tokens);
  [[nodiscard]] Status run_prefill(const StepPlan& plan, std::vector<EngineToken>& tokens);
  // Draws rows [0, rows) from the hidden rows from `first` on.
  [[nodiscard]] Status record_draw(Recorder& recorder, uint32_t first, uint32_t rows);
  // The tokens of a request's rows: its own from `row`, and those of its right drafts. False when
  // it has ended.
  [[nodiscard]] bool take_tokens(const PlannedWork& work, uint32_t row,
                                 std::vector<EngineToken>& tokens);
  // What `work` computed of a request with tokens `ids`, its rows' hidden states from `row` on.
  [[nodiscard]] DraftContext draft_context(const PlannedWork& work, uint32_t row,
                                           std::span<const uint32_t> ids);
  [[nodiscard]] Status draft_behind_prefill(const StepPlan& plan);
  void set_drafts(RequestId request);
  // The token that was drawn in `row`. False when the request has ended.
  [[nodiscard]] bool take_token(RequestId request, uint32_t row, std::vector<EngineToken>& tokens);

  model::Model* model_;
  const KvCache* cache_;
  PagePool* pages_;
  EngineOptions options_;
  PrefillPipeline prefill_;
  DecodePipeline decode_;
  Sampler sampler_;
  std::optional<Drafter> drafter_;  // with options_.speculate
  std::vector<Status> row_status_;  // of what the sampler's rows were set to
  Scheduler scheduler_;
  std::unordered_map<RequestId, Request> requests_;
  std::set<std::pair<std::chrono::steady_clock::time_point, RequestId>> deadlines_;
  Status lost_;  // not ok: the device is lost
  EngineStats stats_;
};

}  // namespace hadal::runtime
