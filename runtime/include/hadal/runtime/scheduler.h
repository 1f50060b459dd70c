// Which sequences a step computes: continuous batching over the pages of one cache. Pure policy: no
// device, no clock, no thread; the engine executes its plans, a simulation can too.
//
// Every position of a request belongs to a phase: prompt positions are computed by prefill,
// generated ones by decode. So a request whose pages were dropped (preempted) prefills its prompt
// again and replays its generated tokens through decode, and its bits are those of an undisturbed
// run. Where that costs less (hadal/runtime/swap.h), its pages move to host memory instead and come
// back as they were.
//
// Order: the higher priority first, then the earlier request; waiting raises a request's priority
// by one every `aging_steps`, so that nothing starves. Who is admitted loses its pages to a request
// of a higher priority that also goes first in this order, or when another's next token finds no
// page and it goes last. Waiting alone takes nobody's pages, so no two requests take turns without
// new tokens, and all come to their ends.
//
// Source: Orca (OSDI 2022) for continuous batching, Sarathi-Serve (arXiv 2403.02310) for chunked
// prefill beside decode, vLLM for preemption by recomputation.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "hadal/runtime/page_pool.h"
#include "hadal/runtime/running_mean.h"
#include "hadal/runtime/swap.h"
#include "hadal/status.h"

namespace hadal::runtime {

using RequestId = uint64_t;

struct SchedulerOptions {
  uint32_t max_rows = 32;       // rows of a decode step
  uint32_t max_requests = 0;    // admitted at once, at most max_rows; 0: max_rows
  uint32_t max_chunk = 512;     // tokens of a prefill chunk
  uint32_t max_context = 4096;  // positions of a request, prompt and generated
  uint32_t aging_steps = 512;   // of waiting that weigh as much as one priority
  double step_seconds = 0.1;    // of a step with both phases, what the prefill budget aims at
  uint32_t swap_pages = 0;      // of host memory for preempted requests
  bool always_swap = false;     // also where measured times say that computing again is quicker
};

struct RequestSpec {
  std::vector<uint32_t> prompt;
  uint32_t max_new_tokens = 0;
  int32_t priority = 0;  // higher goes first
  // A request that another scheduler began: the first of its new tokens, and the rows [0, computed)
  // of its positions, which its owner keeps until a plan moves them into the cache.
  std::vector<uint32_t> generated = {};
  uint32_t computed = 0;
};

// Positions [begin, begin + tokens) of a request. `last`: the hidden state of the last one gives
// the request's next token.
struct PlannedWork {
  RequestId request = 0;
  uint32_t begin = 0, tokens = 0;
  bool last = false;
  uint32_t drafts = 0;  // positions behind the last one, with guessed tokens
};

// Pages of a request that are copied between the cache and host memory.
struct PlannedSwap {
  RequestId request = 0;
  bool imported = false;  // host pages are those of its RequestSpec::computed rows, in order
  std::vector<PageMove> pages;
};

// Swaps go before the work: all that leave the cache, then all that come into it. Pages that leave
// may belong to somebody else already.
struct StepPlan {
  std::vector<PlannedSwap> swap_out, swap_in;
  std::vector<PlannedWork> decode;   // rows, at most max_rows in all
  std::vector<PlannedWork> prefill;  // chunks, one request each
  std::vector<RequestId> preempted;  // their pages are gone already, or in swap_out
  [[nodiscard]] bool swaps() const { return !swap_out.empty() || !swap_in.empty(); }
  [[nodiscard]] bool empty() const { return decode.empty() && prefill.empty() && !swaps(); }
};

// Where the computed rows of a request are.
struct RowsKept {
  enum class Where { kCache, kSwapSpace, kImported } where = Where::kCache;
  uint32_t prompt_tokens = 0, computed = 0;
  uint32_t length = 0;              // prompt with all that it may generate
  std::span<const uint32_t> pages;  // of the cache or the swap space; empty for kImported
};

struct SchedulerStats {
  uint32_t waiting = 0, admitted = 0;
  uint64_t preemptions = 0, reused_tokens = 0;
  uint32_t swap_pages = 0, swap_used = 0;  // of host memory
  uint64_t swapped_out_pages = 0, swapped_in_pages = 0;
  double swap_seconds = 0.0;
  uint32_t prefill_budget = 0;  // tokens, of the last plan
};

class Scheduler {
 public:
  // The pool must outlive the scheduler. Not thread-safe.
  Scheduler(PagePool& pool, SchedulerOptions options);

  // Errors: kInvalidArgument for an empty prompt, no token to generate, more positions than the
  // context; kOutOfDeviceMemory when the pool could never hold the request.
  [[nodiscard]] Result<RequestId> add(RequestSpec spec);
  // What add() would say of a new request. Thread-safe beside everything else.
  [[nodiscard]] Status check(size_t prompt_tokens, uint32_t max_new_tokens) const;
  // Ends a request at any time between steps, in whatever state; its pages go back, those in the
  // swap space, too.
  void remove(RequestId id);

  // What the next step computes; empty when nothing is left to do. Its work must be executed (or
  // its requests removed) before the next plan.
  [[nodiscard]] StepPlan plan();
  // The plan's swaps were executed, in `seconds`.
  void swapped(const StepPlan& plan, double seconds);
  // How many drafts of its next tokens a generating request has: the next plan computes as many as
  // rows and pages are left for, behind everybody's own tokens; rows are shared out in turn.
  void set_drafts(RequestId id, uint32_t drafts);
  // The work was executed, without its drafts.
  void done(const PlannedWork& work);
  // The draft at the request's next position was its next token, which has been appended: the row
  // is computed already.
  void accept_draft(RequestId id);
  // The token that work with `last` gave.
  void append(RequestId id, uint32_t token);
  // How long the parts of a step took: the prefill budget learns from it.
  void measured(uint32_t decode_rows, double decode_seconds, uint32_t prefill_tokens,
                double prefill_seconds);
  // How long moving `pages` took when it was tried, so that the first preemption can compare.
  void measured_swap(uint32_t pages, double seconds) { swap_policy_.moved(pages, seconds); }

  // Prompt and generated tokens of a request.
  [[nodiscard]] std::span<const uint32_t> tokens(RequestId id) const;
  [[nodiscard]] SequencePages& pages(RequestId id);
  // Between steps.
  [[nodiscard]] RowsKept rows(RequestId id) const;
  [[nodiscard]] SchedulerStats stats() const;

 private:
  struct Request {
    RequestId id = 0;  // ascending with arrival
    std::vector<uint32_t> ids;
    uint32_t prompt_tokens = 0, max_tokens = 0;  // prompt, and prompt with all that it may generate
    uint32_t computed = 0;                       // positions whose rows are in the cache
    uint32_t drafts = 0;
    int32_t priority = 0;
    uint64_t waited = 0;  // steps
    bool admitted = false;
    uint32_t left_rows = 0;  // of its prompt, known to the pool when it was preempted last
    bool imported = false;   // rows were computed elsewhere: nobody else may take them over
    bool arriving = false;   // imported rows that no plan has moved yet
    SequencePages pages;
    std::vector<uint32_t> host_pages;  // of its rows, in the swap space
    explicit Request(PagePool& pool) : pages(pool) {}
    [[nodiscard]] uint32_t known() const { return uint32_t(ids.size()); }
  };
  // Higher goes first; a priority weighs aging_steps.
  [[nodiscard]] int64_t rank(const Request& request) const;
  [[nodiscard]] bool before(const Request& a, const Request& b) const;
  [[nodiscard]] Request* find_if_any(RequestId id);
  [[nodiscard]] Request& find(RequestId id);
  [[nodiscard]] std::vector<Request*> admitted_in_order();
  // The admitted request that goes last, if it ranks `margin` below `request`.
  [[nodiscard]] Request* victim_for(const Request& request, int64_t margin);
  [[nodiscard]] Request* first_waiting();
  [[nodiscard]] uint32_t prefill_budget(uint32_t rows) const;
  void preempt(Request& request, StepPlan& plan);
  [[nodiscard]] bool keeps(const Request& request) const;
  // Of a request's rows, those in pages that its prefill made known to the pool.
  [[nodiscard]] static uint32_t published_rows(const Request& request);
  // Takes pages, known ones first; the positions that those cover, or none when they do not fit.
  [[nodiscard]] std::optional<uint32_t> take_pages(Request& request);
  void plan_swap_in(Request& request, uint32_t found, StepPlan& plan);
  void plan_decode(StepPlan& plan);
  void plan_drafts(StepPlan& plan, uint32_t rows);  // guesses, beside `rows` planned rows
  void plan_prefill(StepPlan& plan);
  void plan_chunk(Request& request, uint32_t& budget, StepPlan& plan);
  [[nodiscard]] bool admit(Request& request, StepPlan& plan);

  PagePool* pool_;
  SchedulerOptions options_;
  std::list<Request> requests_;  // by arrival
  RequestId last_id_ = 0;
  RunningMean row_seconds_, token_seconds_;  // of a decode row, of a prefill token
  SwapSpace swap_space_;
  SwapPolicy swap_policy_;
  SchedulerStats stats_;
};

}  // namespace hadal::runtime
