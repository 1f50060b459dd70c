// An engine without a device: a scheduler's plans are executed on a model of the cache and the swap
// space whose rows are hashes of the tokens up to them, so that a row computed from anything but
// its own prefix is noticed, and so is a page that moved to a wrong place.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "hadal/runtime/scheduler.h"
#include "hadal/types.h"

namespace hadal::runtime {

// A hash of tokens, one more at a time.
constexpr uint32_t kNoTokens = 2166136261u;
inline uint32_t hash_of(uint32_t before, uint32_t id) {
  return (before ^ id) * 16777619u;
}

// What a request's next token is: a function of everything before it.
inline uint32_t next_token(std::span<const uint32_t> ids) {
  return std::accumulate(ids.begin(), ids.end(), kNoTokens, hash_of) % 1000;
}

// A cache row: the hash of the tokens up to its position, and who wrote it.
struct StubRow {
  uint32_t hash = 0;
  bool decoded = false;
  bool imported = false;  // not computed by this engine
};
using StubPage = std::array<StubRow, kPageTokens>;

// A request that left an engine, and what a second one needs to go on with it.
struct StubState {
  RequestSpec spec;
  std::vector<StubPage> pages;
};

class StubEngine {
 public:
  StubEngine(uint32_t pages, SchedulerOptions options)
      : pool(pages),
        scheduler(pool, options),
        options_(options),
        cache_(pages),
        swap_(options.swap_pages) {}
  double page_seconds = 1e-3;  // one way

  struct Outcome {
    std::vector<uint32_t> ids;  // prompt and generated
    uint64_t first_step = 0, last_step = 0;
  };

  RequestId add(RequestSpec spec) {
    const uint32_t prompt_tokens = uint32_t(spec.prompt.size());
    const uint32_t limit = prompt_tokens + spec.max_new_tokens;
    auto id = scheduler.add(std::move(spec));
    EXPECT_TRUE(id.ok()) << id.status().message();
    running_[*id] = {prompt_tokens, limit};
    return *id;
  }
  RequestId import(StubState state) {
    for (StubPage& page : state.pages) {
      for (StubRow& row : page) row.imported = true;
    }
    const RequestId id = add(std::move(state.spec));
    imported_[id] = std::move(state.pages);
    imported_ids_.insert(id);
    return id;
  }
  // What a request is now; it goes on here until it is cancelled.
  [[nodiscard]] StubState state(RequestId id) {
    const RowsKept rows = scheduler.rows(id);
    const auto ids = scheduler.tokens(id);
    StubState state;
    state.spec.prompt.assign(ids.begin(), ids.begin() + rows.prompt_tokens);
    state.spec.generated.assign(ids.begin() + rows.prompt_tokens, ids.end());
    state.spec.max_new_tokens = running_[id].tokens - rows.prompt_tokens;
    state.spec.computed = rows.computed;
    for (uint32_t i = 0; i < ceil_div(rows.computed, kPageTokens); ++i) {
      state.pages.push_back(rows.where == RowsKept::Where::kCache       ? cache_[rows.pages[i]]
                            : rows.where == RowsKept::Where::kSwapSpace ? swap_[rows.pages[i]]
                                                                        : imported_[id][i]);
    }
    return state;
  }
  void cancel(RequestId id) {
    scheduler.remove(id);
    running_.erase(id);
  }
  // One step; false when there was nothing to do.
  bool step() {
    ++step_;
    const StepPlan plan = scheduler.plan();
    uint32_t rows = 0, tokens = 0;
    for (const PlannedWork& work : plan.decode) rows += work.tokens;
    for (const PlannedWork& work : plan.prefill) tokens += work.tokens;
    EXPECT_LE(rows, options_.max_rows);
    EXPECT_LE(tokens, options_.max_chunk);
    if (plan.swaps()) execute_swaps(plan);
    for (const PlannedWork& work : plan.decode) execute(work, true);
    for (const PlannedWork& work : plan.prefill) execute(work, false);
    scheduler.measured(rows, rows * 1e-3, tokens, tokens * 1e-4);
    return !plan.empty();
  }
  // Every reference to a page is some running request's.
  void expect_balance() {
    std::vector<uint32_t> references(pool.total_pages());
    for (const auto& [id, limits] : running_) {
      for (const uint32_t page : scheduler.pages(id).block_table()) ++references[page];
    }
    for (uint32_t page = 0; page < references.size(); ++page) {
      ASSERT_EQ(pool.references(page), references[page]) << "page " << page;
    }
    const PagePoolStats stats = pool.stats();
    ASSERT_EQ(stats.used + stats.cached + stats.free, stats.total);
    ASSERT_EQ(scheduler.stats().admitted + scheduler.stats().waiting, running_.size());
  }
  [[nodiscard]] uint64_t steps() const { return step_; }
  [[nodiscard]] size_t unfinished() const { return running_.size(); }
  [[nodiscard]] RequestId running(uint32_t index) const {
    return std::next(running_.begin(), index)->first;
  }

  PagePool pool;
  Scheduler scheduler;
  std::map<RequestId, Outcome> outcomes;

 private:
  struct Limits {
    uint32_t prompt = 0, tokens = 0;
  };
  StubRow& row(SequencePages& pages, uint32_t position) {
    const uint32_t slot = pages.slot(position);
    return cache_[slot / kPageTokens][slot % kPageTokens];
  }
  // The copies of one direction may run in any order: no page is written twice.
  void execute_swaps(const StepPlan& plan) {
    std::set<uint32_t> written;
    uint32_t pages = 0;
    for (const PlannedSwap& swap : plan.swap_out) {
      ASSERT_FALSE(swap.imported);
      for (const PageMove& move : swap.pages) {
        ASSERT_LT(move.host_page, swap_.size());
        ASSERT_TRUE(written.insert(move.host_page).second) << "host page " << move.host_page;
        swap_[move.host_page] = cache_.at(move.cache_page);
        ++pages;
      }
    }
    written.clear();
    for (const PlannedSwap& swap : plan.swap_in) {
      ASSERT_TRUE(running_.count(swap.request));
      const std::vector<StubPage>& from = swap.imported ? imported_.at(swap.request) : swap_;
      for (const PageMove& move : swap.pages) {
        ASSERT_TRUE(written.insert(move.cache_page).second) << "page " << move.cache_page;
        ASSERT_EQ(pool.references(move.cache_page), 1u) << "somebody else's page";
        cache_.at(move.cache_page) = from.at(move.host_page);
        ++pages;
      }
      if (swap.imported) imported_.erase(swap.request);
    }
    scheduler.swapped(plan, pages * page_seconds);
    ASSERT_LE(scheduler.stats().swap_used, options_.swap_pages);
  }
  void execute(const PlannedWork& work, bool decode) {
    ASSERT_TRUE(running_.count(work.request));
    const Limits limits = running_[work.request];
    const auto ids = scheduler.tokens(work.request);
    SequencePages& pages = scheduler.pages(work.request);
    ASSERT_GT(work.tokens, 0u);
    ASSERT_LE(work.begin + work.tokens, ids.size());
    ASSERT_EQ(work.last, work.begin + work.tokens == ids.size());
    ASSERT_GE(pages.capacity(), work.begin + work.tokens);
    // It attends over all rows up to its last: they are its own tokens' and of the right phase.
    uint32_t hash = kNoTokens;
    for (uint32_t p = 0; p < work.begin + work.tokens; ++p) {
      hash = hash_of(hash, ids[p]);
      StubRow& r = row(pages, p);
      if (p >= work.begin) {
        ASSERT_EQ(decode, p >= limits.prompt) << "the wrong phase";
        r = {hash, decode};
      }
      ASSERT_EQ(r.hash, hash) << "request " << work.request << ", " << p;
      ASSERT_EQ(r.decoded, p >= limits.prompt);
      // Rows from elsewhere are their request's alone.
      ASSERT_TRUE(!r.imported || imported_ids_.count(work.request)) << work.request;
    }
    scheduler.done(work);
    if (!work.last) return;
    const uint32_t token = next_token(ids);
    scheduler.append(work.request, token);
    Outcome& outcome = outcomes[work.request];
    if (outcome.first_step == 0) outcome.first_step = step_;
    if (scheduler.tokens(work.request).size() < limits.tokens) return;
    const auto all = scheduler.tokens(work.request);
    outcome.ids.assign(all.begin(), all.end());
    outcome.last_step = step_;
    scheduler.remove(work.request);
    running_.erase(work.request);
  }
  SchedulerOptions options_;
  std::vector<StubPage> cache_, swap_;
  std::map<RequestId, std::vector<StubPage>> imported_;  // until they are in the cache
  std::set<RequestId> imported_ids_;
  std::map<RequestId, Limits> running_;
  uint64_t step_ = 0;
};

inline std::vector<uint32_t> prompt(uint32_t length, uint32_t first) {
  std::vector<uint32_t> ids(length);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

inline std::vector<uint32_t> continued(std::vector<uint32_t> ids, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) ids.push_back(next_token(ids));
  return ids;
}

}  // namespace hadal::runtime
