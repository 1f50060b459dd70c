#include "hadal/runtime/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "hadal/types.h"

namespace hadal::runtime {
namespace {

// Prefill goes on beside decode, however slow a step is.
constexpr uint32_t kLeastChunk = 16;

}  // namespace

Scheduler::Scheduler(PagePool& pool, SchedulerOptions options)
    : pool_(&pool), options_(options), swap_space_(options.swap_pages) {}

Status Scheduler::check(size_t prompt_tokens, uint32_t max_new_tokens) const {
  const auto error = [](Errc code, std::string text) {
    return Status(code, "scheduler: " + std::move(text));
  };
  if (prompt_tokens == 0) {
    return error(Errc::kInvalidArgument, "the prompt must have at least one token, got 0");
  }
  if (max_new_tokens == 0) {
    return error(Errc::kInvalidArgument, "max_new_tokens must be at least 1, got 0");
  }
  const uint64_t positions = prompt_tokens + uint64_t{max_new_tokens};
  if (positions > options_.max_context) {
    return error(Errc::kInvalidArgument,
                 fmt::format("prompt and new tokens must be at most the context of {}, got {} + {}",
                             options_.max_context, prompt_tokens, max_new_tokens));
  }
  const uint32_t pages = ceil_div(uint32_t(positions), kPageTokens);
  if (pages > pool_->total_pages()) {
    return error(Errc::kOutOfDeviceMemory,
                 fmt::format("{} pages are needed, the cache has {}", pages, pool_->total_pages()));
  }
  return {};
}

Result<RequestId> Scheduler::add(RequestSpec spec) {
  HADAL_TRY(check(spec.prompt.size(), spec.max_new_tokens));
  if (spec.generated.size() >= spec.max_new_tokens) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("scheduler: generated tokens must be fewer than max_new_tokens of {}, "
                    "got {}",
                    spec.max_new_tokens, spec.generated.size()));
  }
  const size_t known = spec.prompt.size() + spec.generated.size();
  if (spec.computed >= known) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("scheduler: computed rows must be fewer than the {} tokens, got {}",
                              known, spec.computed));
  }
  Request request(*pool_);
  request.id = ++last_id_, request.ids = std::move(spec.prompt), request.priority = spec.priority;
  request.prompt_tokens = request.known();
  request.max_tokens = request.prompt_tokens + spec.max_new_tokens;
  request.ids.insert(request.ids.end(), spec.generated.begin(), spec.generated.end());
  request.computed = spec.computed;
  request.imported = request.arriving = spec.computed > 0;
  requests_.push_back(std::move(request));
  return last_id_;
}

void Scheduler::remove(RequestId id) {
  if (const Request* request = find_if_any(id)) swap_space_.give_back(request->host_pages);
  requests_.remove_if([id](const Request& r) { return r.id == id; });
}

int64_t Scheduler::rank(const Request& request) const {
  return int64_t{request.priority} * options_.aging_steps + int64_t(request.waited);
}

bool Scheduler::before(const Request& a, const Request& b) const {
  return rank(a) != rank(b) ? rank(a) > rank(b) : a.id < b.id;
}

Scheduler::Request* Scheduler::find_if_any(RequestId id) {
  const auto found = std::find_if(requests_.begin(), requests_.end(),
                                  [id](const Request& r) { return r.id == id; });
  return found == requests_.end() ? nullptr : &*found;
}

Scheduler::Request& Scheduler::find(RequestId id) {
  Request* request = find_if_any(id);
  assert(request);
  return *request;
}

std::vector<Scheduler::Request*> Scheduler::admitted_in_order() {
  std::vector<Request*> result;
  for (Request& r : requests_) {
    if (r.admitted) result.push_back(&r);
  }
  std::sort(result.begin(), result.end(),
            [this](const Request* a, const Request* b) { return before(*a, *b); });
  return result;
}

Scheduler::Request* Scheduler::victim_for(const Request& request, int64_t margin) {
  Request* last = nullptr;
  for (Request& r : requests_) {
    if (r.admitted && &r != &request && (!last || before(*last, r))) last = &r;
  }
  if (!last || !before(request, *last) || rank(request) - rank(*last) < margin) return nullptr;
  return last;
}

Scheduler::Request* Scheduler::first_waiting() {
  Request* first = nullptr;
  for (Request& r : requests_) {
    if (!r.admitted && (!first || before(r, *first))) first = &r;
  }
  return first;
}

uint32_t Scheduler::prefill_budget(uint32_t rows) const {
  if (rows == 0 || !token_seconds_.known()) return options_.max_chunk;
  const double room =
      (options_.step_seconds - rows * row_seconds_.value()) / token_seconds_.value();
  const uint32_t least = std::min(kLeastChunk, options_.max_chunk);
  if (!(room > least)) return least;
  return room < options_.max_chunk ? uint32_t(room) : options_.max_chunk;
}

uint32_t Scheduler::published_rows(const Request& request) {
  if (request.imported || request.computed < request.prompt_tokens) return 0;
  return (request.prompt_tokens - 1) / kPageTokens * kPageTokens;  // SequencePages::reuse
}

bool Scheduler::keeps(const Request& request) const {
  const uint32_t pages = ceil_div(request.computed, kPageTokens);
  if (pages == 0 || pages > swap_space_.free_pages()) return false;
  if (options_.always_swap) return true;
  SwapPolicy::Rows rows;
  rows.prompt = std::min(request.computed, request.prompt_tokens);
  rows.generated = request.computed - rows.prompt;
  rows.pages = pages;
  rows.whole_pages = published_rows(request);
  return swap_policy_.keeps(rows, token_seconds_, row_seconds_);
}

void Scheduler::preempt(Request& request, StepPlan& plan) {
  // One that comes in by this plan goes before everybody that the plan can still admit.
  assert(request.host_pages.empty() && !request.arriving);
  request.left_rows = published_rows(request);
  if (keeps(request)) {
    request.host_pages = swap_space_.take(ceil_div(request.computed, kPageTokens));
    PlannedSwap swap{request.id, false, {}};
    for (size_t i = 0; i < request.host_pages.size(); ++i) {
      swap.pages.push_back({request.pages.block_table()[i], request.host_pages[i]});
    }
    plan.swap_out.push_back(std::move(swap));
  } else {
    request.computed = 0, request.imported = false;
  }
  request.pages.clear();
  request.admitted = false;
  const auto is_its = [&](const PlannedWork& work) { return work.request == request.id; };
  std::erase_if(plan.decode, is_its);
  std::erase_if(plan.prefill, is_its);
  plan.preempted.push_back(request.id);
  ++stats_.preemptions;
}

void Scheduler::plan_decode(StepPlan& plan) {
  const auto decoding = [](const Request& r) {
    return r.admitted && r.computed >= r.prompt_tokens;
  };
  for (Request* request : admitted_in_order()) {
    if (!decoding(*request)) continue;  // also one that was preempted in this loop
    while (!request->pages.reserve(request->computed + 1).ok()) {
      Request* victim = victim_for(*request, 0);
      preempt(victim ? *victim : *request, plan);
      if (!victim) break;
    }
    if (!request->admitted) continue;
    plan.decode.push_back(
        {request->id, request->computed, 1, request->computed + 1 == request->known()});
  }
  // Rows that are left replay generated tokens of preempted requests, where pages allow it.
  uint32_t rows = uint32_t(plan.decode.size());
  for (PlannedWork& work : plan.decode) {
    Request& request = find(work.request);
    const uint32_t more = std::min(options_.max_rows - rows, request.known() - work.begin - 1);
    if (more == 0 || !request.pages.reserve(work.begin + 1 + more).ok()) continue;
    work.tokens += more, rows += more;
    work.last = work.begin + work.tokens == request.known();
  }
  plan_drafts(plan, rows);
}

void Scheduler::plan_drafts(StepPlan& plan, uint32_t rows) {
  // One for each in turn, so that nobody's second guess takes somebody's first.
  for (bool more = true; more && rows < options_.max_rows;) {
    more = false;
    for (PlannedWork& work : plan.decode) {
      Request& request = find(work.request);
      // A request's last token needs no row.
      const uint32_t most = request.max_tokens - request.known() - 1;
      if (!work.last || work.drafts >= std::min(request.drafts, most)) continue;
      if (rows == options_.max_rows) return;
      if (!request.pages.reserve(request.known() + work.drafts + 1).ok()) continue;
      ++work.drafts, ++rows;
      more = true;
    }
  }
}

std::optional<uint32_t> Scheduler::take_pages(Request& request) {
  // Rows from elsewhere may differ in their last bits from what was computed here: no mixing.
  const uint32_t found =
      request.imported ? 0
                       : request.pages.reuse(std::span(request.ids).first(request.prompt_tokens));
  if (request.pages.reserve(request.known() + 1).ok()) return found;
  request.pages.clear();
  return std::nullopt;
}

void Scheduler::plan_swap_in(Request& request, uint32_t found, StepPlan& plan) {
  const auto table = request.pages.block_table();
  PlannedSwap swap{request.id, request.arriving, {}};
  for (uint32_t i = found / kPageTokens; i < ceil_div(request.computed, kPageTokens); ++i) {
    swap.pages.push_back({table[i], request.arriving ? i : request.host_pages[i]});
  }
  plan.swap_in.push_back(std::move(swap));
}

bool Scheduler::admit(Request& request, StepPlan& plan) {
  std::optional<uint32_t> found;
  while (!(found = take_pages(request))) {
    // Only for somebody clearly more important: what is dropped has to be computed again. Waiting
    // alone is no reason, or two that do not fit together would take turns without getting on.
    Request* victim = victim_for(request, options_.aging_steps);
    if (!victim || victim->priority >= request.priority) return false;
    preempt(*victim, plan);
  }
  if (!request.imported) swap_policy_.returned(std::exchange(request.left_rows, 0), *found);
  if (request.computed > 0) plan_swap_in(request, *found, plan);
  request.computed = std::max(request.computed, *found);
  request.admitted = true;
  stats_.reused_tokens += *found;
  return true;
}

void Scheduler::plan_chunk(Request& request, uint32_t& budget, StepPlan& plan) {
  const uint32_t tokens = std::min(budget, request.prompt_tokens - request.computed);
  budget -= tokens;
  plan.prefill.push_back(
      {request.id, request.computed, tokens, request.computed + tokens == request.known()});
}

void Scheduler::plan_prefill(StepPlan& plan) {
  uint32_t rows = 0;
  for (const PlannedWork& work : plan.decode) rows += work.tokens + work.drafts;
  uint32_t budget = prefill_budget(rows);
  stats_.prefill_budget = budget;
  const std::vector<Request*> admitted = admitted_in_order();
  for (Request* request : admitted) {
    if (request->computed < request->prompt_tokens && budget > 0)
      plan_chunk(*request, budget, plan);
  }
  // In order only: a large request that does not fit is not overtaken by small ones.
  const uint32_t most = options_.max_requests ? std::min(options_.max_requests, options_.max_rows)
                                              : options_.max_rows;
  for (size_t count = admitted.size(); count < most; ++count) {
    Request* request = first_waiting();
    if (!request) break;
    // A kept request whose prompt is computed needs no budget; it goes on with the next step.
    if (budget == 0 && request->computed < request->prompt_tokens) break;
    if (!admit(*request, plan)) break;
    if (request->computed < request->prompt_tokens) plan_chunk(*request, budget, plan);
  }
}

StepPlan Scheduler::plan() {
  StepPlan plan;
  for (Request& r : requests_) r.waited += !r.admitted;
  plan_decode(plan);
  plan_prefill(plan);
  return plan;
}

void Scheduler::done(const PlannedWork& work) {
  Request& request = find(work.request);
  assert(request.computed == work.begin);
  request.computed = work.begin + work.tokens;
  if (work.begin < request.prompt_tokens && request.computed == request.prompt_tokens &&
      !request.imported) {
    request.pages.publish(std::span(request.ids).first(request.prompt_tokens),
                          PageOrigin::kPrefill);
  }
}

void Scheduler::swapped(const StepPlan& plan, double seconds) {
  uint32_t out = 0, in = 0;
  for (const PlannedSwap& swap : plan.swap_out) out += uint32_t(swap.pages.size());
  for (const PlannedSwap& swap : plan.swap_in) {
    in += uint32_t(swap.pages.size());
    Request* request = find_if_any(swap.request);
    if (!request) continue;
    swap_space_.give_back(request->host_pages);
    request->host_pages.clear();
    request->arriving = false;
    if (!request->imported && request->computed >= request->prompt_tokens) {
      request->pages.publish(std::span(request->ids).first(request->prompt_tokens),
                             PageOrigin::kPrefill);
    }
  }
  stats_.swapped_out_pages += out, stats_.swapped_in_pages += in;
  stats_.swap_seconds += seconds;
  swap_policy_.moved(out + in, seconds);
}

void Scheduler::set_drafts(RequestId id, uint32_t drafts) {
  find(id).drafts = drafts;
}

void Scheduler::accept_draft(RequestId id) {
  Request& request = find(id);
  assert(request.computed + 1 == request.known());
  ++request.computed;
}

void Scheduler::append(RequestId id, uint32_t token) {
  Request& request = find(id);
  assert(request.computed == request.known());
  request.ids.push_back(token);
}

void Scheduler::measured(uint32_t decode_rows, double decode_seconds, uint32_t prefill_tokens,
                         double prefill_seconds) {
  if (decode_rows) row_seconds_.add(decode_seconds / decode_rows);
  if (prefill_tokens) token_seconds_.add(prefill_seconds / prefill_tokens);
}

std::span<const uint32_t> Scheduler::tokens(RequestId id) const {
  return const_cast<Scheduler*>(this)->find(id).ids;
}

SequencePages& Scheduler::pages(RequestId id) {
  return find(id).pages;
}

RowsKept Scheduler::rows(RequestId id) const {
  const Request& request = const_cast<Scheduler*>(this)->find(id);
  RowsKept kept;
  kept.prompt_tokens = request.prompt_tokens, kept.computed = request.computed;
  kept.length = request.max_tokens;
  if (request.arriving) {
    kept.where = RowsKept::Where::kImported;
  } else if (!request.host_pages.empty()) {
    kept.where = RowsKept::Where::kSwapSpace, kept.pages = request.host_pages;
  } else {
    kept.pages = request.pages.block_table();
  }
  return kept;
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = stats_;
  stats.swap_pages = swap_space_.total_pages();
  stats.swap_used = stats.swap_pages - swap_space_.free_pages();
  for (const Request& r : requests_) ++(r.admitted ? stats.admitted : stats.waiting);
  return stats;
}

}  // namespace hadal::runtime
