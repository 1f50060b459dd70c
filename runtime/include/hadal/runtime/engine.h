// Many requests at once over one model and cache: add requests, step, read tokens. No thread of its
// own; any host loop can drive it.
//
// A step runs one decode batch (a row of each request that is generating) and then prefill chunks
// within the scheduler's budget. A request's tokens do not depend on who shares its steps, on
// chunks, on preemption or on taken-over prefixes: each row's bits depend on its sequence only,
// prompt positions are always prefilled and generated ones always decoded
// (hadal/runtime/scheduler.h), and a draw depends on the request's seed, the position and the
// tokens before it. The same holds for log-probabilities, to the bit.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "hadal/runtime/decode_pipeline.h"
#include "hadal/runtime/draft_policy.h"
#include "hadal/runtime/prefill_pipeline.h"
#include "hadal/runtime/request_sampling.h"
#include "hadal/runtime/sampler.h"
#include "hadal/runtime/scheduler.h"
#include "hadal/runtime/trace.h"

namespace hadal::runtime {

struct EngineOptions {
  uint32_t max_rows = 32;    // requests that generate at once; at most the model's max_decode_rows
                             // and max_logit_rows
  uint32_t max_chunk = 512;  // prefill tokens per step; at most the model's max_tokens
  uint32_t aging_steps = 512;
  double step_seconds = 0.1;  // SchedulerOptions
  bool speculate = false;     // with the checkpoint's MTP layer
  bool always_draft = false;  // also where measured step times say that it does not pay
  Trace* trace = nullptr;     // where what the engine does goes; must outlive it
};

struct EngineRequest {
  std::vector<uint32_t> prompt;
  uint32_t max_new_tokens = 200;  // fewer when the context ends
  SamplingOptions sampling;
  std::optional<uint32_t> logprobs;  // report log-probabilities: of the token, and of that many of
                                     // the most probable ones, at most kMaxTopLogprobs
  TokenMask mask;  // which tokens may follow; one that throws or allows none ends the request as
                   // if it was cancelled
  std::vector<uint32_t> stop_ids;  // generation ends behind one of these (it is reported too)
  int32_t priority = 0;            // higher goes first
};

enum class FinishReason {
  kNone,    // goes on
  kLength,  // max_new_tokens, or the context's end
  kStop,    // a stop id
};

// A token of a request.
struct EngineToken {
  RequestId request = 0;
  uint32_t id = 0;
  FinishReason finish = FinishReason::kNone;
  std::optional<TokenLogprobs> logprobs;  // where the request asked
};

struct EngineStats {
  SchedulerStats scheduler;
  PagePoolStats pages;
  uint64_t steps = 0, prefilled_tokens = 0, decoded_rows = 0;
  uint64_t decoded_tokens = 0;  // given by decode steps
  uint64_t verified_drafts = 0, accepted_drafts = 0;
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
  // vocabulary, a prompt as long as the context, sampling, logprobs); kOutOfDeviceMemory when the
  // cache could never hold the request.
  [[nodiscard]] Result<RequestId> add(const EngineRequest& request);
  // Between steps, in whatever state the request is; unknown and ended ones are ignored.
  void cancel(RequestId request);

  // Runs one step and waits for it: the tokens that it gave, in the order of its rows. Nothing left
  // to do gives none. Errors: those of the device, after which every request has ended, the cache's
  // pages are free and the engine goes on if the device does.
  [[nodiscard]] Result<std::vector<EngineToken>> step();
  [[nodiscard]] bool idle() const { return requests_.empty(); }
  [[nodiscard]] EngineStats stats() const;

 private:
  struct Request {
    RequestSampling sampling;
    std::vector<uint32_t> stop_ids;
    uint32_t length = 0;            // prompt and new tokens
    std::optional<uint32_t> draft;  // of the token after the next
  };
  Engine(model::Model& model, const KvCache& cache, PagePool& pages, EngineOptions options,
         PrefillPipeline prefill, DecodePipeline decode, Sampler sampler, Sampler drafter);
  [[nodiscard]] StepPlan make_plan();
  [[nodiscard]] Result<std::vector<EngineToken>> run_plan(const StepPlan& plan);
  [[nodiscard]] Status run_decode(const StepPlan& plan, std::vector<EngineToken>& tokens);
  [[nodiscard]] Status run_prefill(const PlannedWork& work, std::vector<EngineToken>& tokens);
  // Draws rows [0, rows) from the hidden rows from `first` on.
  [[nodiscard]] Status record_draw(Recorder& recorder, uint32_t first, uint32_t rows);
  // Guesses what follows each row's drawn token, in the same submission.
  [[nodiscard]] Status record_drafts(Recorder& recorder, const model::DecodeBatch& batch);
  // The MTP layer over the rows that `work` has just prefilled.
  [[nodiscard]] Status prefill_drafts(const PlannedWork& work);
  // The tokens of a request's rows: its own from `row`, and those of its right drafts.
  void take_tokens(const PlannedWork& work, uint32_t row, bool drafted,
                   std::vector<EngineToken>& tokens);
  // The token that was drawn in `row`. False when the request has ended.
  [[nodiscard]] bool take_token(RequestId request, uint32_t row, std::vector<EngineToken>& tokens);

  model::Model* model_;
  const KvCache* cache_;
  PagePool* pages_;
  EngineOptions options_;
  PrefillPipeline prefill_;
  DecodePipeline decode_;
  Sampler sampler_, drafter_;
  std::vector<Status> row_status_;  // of what the sampler's rows were set to
  Scheduler scheduler_;
  DraftPolicy policy_;
  std::unordered_map<RequestId, Request> requests_;
  EngineStats stats_;
};

}  // namespace hadal::runtime
