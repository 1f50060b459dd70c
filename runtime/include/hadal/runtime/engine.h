// Many requests at once over one model and cache: add requests, step, read tokens. No thread of its
// own; any host loop can drive it.
//
// A step runs one decode batch (a row of each request that is generating) and then one prefill pass
// over chunks of several requests, within the scheduler's budget; the pipelines are under way at
// once, on two queues where the device has them. A request's tokens do not depend on who shares its
// steps, on chunks, on preemption or on taken-over prefixes: each row's bits depend on its sequence
// only, prompt positions are always prefilled and generated ones always decoded
// (hadal/runtime/scheduler.h), and a draw depends on the request's seed and the position.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "hadal/runtime/decode_pipeline.h"
#include "hadal/runtime/draft_policy.h"
#include "hadal/runtime/prefill_pipeline.h"
#include "hadal/runtime/sampler.h"
#include "hadal/runtime/scheduler.h"

namespace hadal::runtime {

struct EngineOptions {
  uint32_t max_rows = 32;    // requests that generate at once; at most the model's max_decode_rows
                             // and max_logit_rows
  uint32_t max_chunk = 512;  // prefill tokens per step; at most the model's max_tokens
  uint32_t aging_steps = 512;
  double step_seconds = 0.1;  // SchedulerOptions
  bool speculate = false;     // with the checkpoint's MTP layer
  bool always_draft = false;  // also where measured step times say that it does not pay
};

struct EngineRequest {
  std::vector<uint32_t> prompt;
  uint32_t max_new_tokens = 200;  // fewer when the context ends
  SamplingOptions sampling;
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
};

struct EngineStats {
  SchedulerStats scheduler;
  PagePoolStats pages;
  uint64_t steps = 0, prefilled_tokens = 0, decoded_rows = 0;
  uint64_t decoded_tokens = 0;  // given by decode steps
  uint64_t verified_drafts = 0, accepted_drafts = 0;
  double prefill_seconds = 0.0, decode_seconds = 0.0;  // host time around the pipelines
  double step_seconds = 0.0;                           // host time of all steps
  double wait_seconds = 0.0;                           // of which inside waits for the device
  RecordingStats recordings;                           // of decode steps
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
  // vocabulary, a prompt as long as the context, sampling); kOutOfDeviceMemory when the cache could
  // never hold the request.
  [[nodiscard]] Result<RequestId> add(const EngineRequest& request);
  // Between steps, in whatever state the request is; unknown and ended ones are ignored.
  void cancel(RequestId request);

  // Runs one step and waits for it: the tokens that it gave, in the order of its rows. Nothing left
  // to do gives none. Errors: those of the device, after which every request has ended, the cache's
  // pages are free and the engine goes on if the device does.
  [[nodiscard]] Result<std::vector<EngineToken>> step();
  [[nodiscard]] bool idle() const { return requests_.empty(); }
  [[nodiscard]] EngineStats stats() const;
  [[nodiscard]] DecodePipeline& decode() { return decode_; }

 private:
  struct Request {
    SamplingOptions sampling;
    std::vector<uint32_t> stop_ids;
    uint32_t length = 0;            // prompt and new tokens
    std::optional<uint32_t> draft;  // of the token after the next
  };
  // What a pipeline's rows are drawn by: each has its own, as both are under way at once.
  struct Draws {
    Sampler tokens, drafts;
    [[nodiscard]] static Result<Draws> create(Device& device, uint32_t rows, uint32_t vocab);
  };
  Engine(model::Model& model, const KvCache& cache, PagePool& pages, EngineOptions options,
         PrefillPipeline prefill, DecodePipeline decode, Draws prefilled, Draws decoded,
         bool two_queues);
  [[nodiscard]] Result<std::vector<EngineToken>> run_plan(const StepPlan& plan);
  [[nodiscard]] Status begin_decode(const StepPlan& plan, bool drafting);
  // Draws a token of each row and, when drafting, guesses in the same submission what follows it.
  [[nodiscard]] Status record_decoded(Recorder& recorder, const model::DecodeBatch& batch,
                                      bool drafting);
  void take_decoded(const StepPlan& plan, bool drafting, double seconds,
                    std::vector<EngineToken>& tokens);
  // Appends to `last_rows` those whose hidden state gives a request's first token.
  [[nodiscard]] Status begin_prefill(const StepPlan& plan, std::vector<uint32_t>& last_rows);
  [[nodiscard]] Status finish_prefill(const StepPlan& plan, std::span<const uint32_t> last_rows,
                                      std::vector<EngineToken>& tokens);
  // The MTP layer over the rows that have just been prefilled; guesses behind the last rows.
  [[nodiscard]] Status prefill_drafts(const StepPlan& plan, std::span<const uint32_t> last_rows);
  // The tokens of a request's rows: its own from `row`, and those of its right drafts.
  void take_tokens(const PlannedWork& work, uint32_t row, bool drafted,
                   std::vector<EngineToken>& tokens);
  // False when the request has ended.
  [[nodiscard]] bool take_token(RequestId request, uint32_t id, std::vector<EngineToken>& tokens);

  model::Model* model_;
  const KvCache* cache_;
  PagePool* pages_;
  EngineOptions options_;
  PrefillPipeline prefill_;
  DecodePipeline decode_;
  Draws prefilled_, decoded_;
  bool two_queues_;  // or one, which runs decode first
  Scheduler scheduler_;
  DraftPolicy policy_;
  std::unordered_map<RequestId, Request> requests_;
  EngineStats stats_;
};

}  // namespace hadal::runtime
