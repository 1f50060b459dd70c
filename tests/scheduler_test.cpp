// The scheduler without a device: its plans are executed on a model of the cache and the swap space
// whose rows are hashes of the tokens up to them, so that a row computed from anything but its own
// prefix is noticed, and so is a page that moved to a wrong place.
#include "hadal/runtime/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>

#include "hadal/types.h"
#include "support/random.h"

namespace hadal::runtime {
namespace {

// A hash of tokens, one more at a time.
constexpr uint32_t kNoTokens = 2166136261u;
uint32_t hash_of(uint32_t before, uint32_t id) {
  return (before ^ id) * 16777619u;
}

// What a request's next token is: a function of everything before it.
uint32_t next_token(std::span<const uint32_t> ids) {
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

std::vector<uint32_t> prompt(uint32_t length, uint32_t first) {
  std::vector<uint32_t> ids(length);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

std::vector<uint32_t> continued(std::vector<uint32_t> ids, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) ids.push_back(next_token(ids));
  return ids;
}

TEST(SchedulerHost, OneRequestIsPrefilledInChunksThenDecoded) {
  PagePool pool(8);
  SchedulerOptions options;
  options.max_chunk = 60;
  Scheduler scheduler(pool, options);
  const auto id = scheduler.add({prompt(100, 0), 3});
  ASSERT_TRUE(id.ok());
  StepPlan plan = scheduler.plan();
  ASSERT_EQ(plan.prefill.size(), 1u);
  EXPECT_EQ(plan.prefill[0].begin, 0u);
  EXPECT_EQ(plan.prefill[0].tokens, 60u);
  EXPECT_FALSE(plan.prefill[0].last);
  scheduler.done(plan.prefill[0]);
  plan = scheduler.plan();
  ASSERT_TRUE(plan.decode.empty() && plan.prefill.size() == 1);
  EXPECT_EQ(plan.prefill[0].begin, 60u);
  EXPECT_EQ(plan.prefill[0].tokens, 40u);
  EXPECT_TRUE(plan.prefill[0].last);
  scheduler.done(plan.prefill[0]);
  scheduler.append(*id, 7);
  plan = scheduler.plan();
  ASSERT_TRUE(plan.prefill.empty() && plan.decode.size() == 1);
  EXPECT_EQ(plan.decode[0].begin, 100u);
  EXPECT_TRUE(plan.decode[0].last);
  scheduler.remove(*id);
  EXPECT_TRUE(scheduler.plan().empty());
  EXPECT_EQ(pool.free_pages(), 8u);
}

TEST(SchedulerHost, RefusesWhatCouldNeverRun) {
  PagePool pool(2);
  SchedulerOptions options;
  options.max_context = 200;
  Scheduler scheduler(pool, options);
  const auto message = [&](RequestSpec spec) {
    return scheduler.add(std::move(spec)).status().message();
  };
  EXPECT_EQ(message({{}, 3}), "scheduler: the prompt must have at least one token, got 0");
  EXPECT_EQ(message({prompt(3, 0), 0}), "scheduler: max_new_tokens must be at least 1, got 0");
  EXPECT_EQ(message({prompt(3, 0), 198}),
            "scheduler: prompt and new tokens must be at most the context of 200, got 3 + 198");
  EXPECT_EQ(message({prompt(3, 0), 0xffffffffu}),
            "scheduler: prompt and new tokens must be at most the context of 200, got 3 + "
            "4294967295");
  EXPECT_EQ(message({prompt(100, 0), 50}), "scheduler: 3 pages are needed, the cache has 2");
}

TEST(SchedulerHost, TheHigherPriorityGoesFirstAndPreempts) {
  SchedulerOptions options;
  options.max_chunk = 1000;
  StubEngine engine(4, options);
  const RequestId low = engine.add({prompt(150, 0), 60, 0});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(engine.step());
  const RequestId same = engine.add({prompt(150, 500), 20, 0});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(engine.step());
  EXPECT_EQ(engine.scheduler.stats().preemptions, 0u);  // its equal waits
  const RequestId high = engine.add({prompt(150, 900), 20, 1});
  while (engine.unfinished()) ASSERT_TRUE(engine.step());
  EXPECT_GE(engine.scheduler.stats().preemptions, 1u);
  EXPECT_LT(engine.outcomes[high].last_step, engine.outcomes[low].last_step);
  EXPECT_LT(engine.outcomes[low].first_step, engine.outcomes[same].first_step);
  EXPECT_EQ(engine.outcomes[low].ids, continued(prompt(150, 0), 60));
  EXPECT_EQ(engine.outcomes[same].ids, continued(prompt(150, 500), 20));
  EXPECT_EQ(engine.outcomes[high].ids, continued(prompt(150, 900), 20));
}

TEST(SchedulerHost, ThePrefillBudgetFollowsMeasuredTimes) {
  PagePool pool(64);
  SchedulerOptions options;
  options.step_seconds = 0.1;
  Scheduler scheduler(pool, options);
  const auto budget = [&](double row_seconds, double token_seconds) {
    for (int i = 0; i < 200; ++i) scheduler.measured(1, row_seconds, 100, 100 * token_seconds);
    const auto decoding = scheduler.add({prompt(1, 0), 5});
    scheduler.done(scheduler.plan().prefill.at(0));
    scheduler.append(*decoding, 1);
    const auto waiting = scheduler.add({prompt(2000, 7), 5});
    (void)scheduler.plan();
    const uint32_t result = scheduler.stats().prefill_budget;
    scheduler.remove(*decoding);
    scheduler.remove(*waiting);
    return result;
  };
  EXPECT_NEAR(budget(0.02, 1e-3), 80, 1);
  EXPECT_NEAR(budget(0.02, 4e-4), 200, 2);
  EXPECT_EQ(budget(0.02, 1e-5), 512u);  // a chunk at most
  EXPECT_EQ(budget(0.2, 1e-3), 16u);    // never nothing
}

TEST(SchedulerHost, DraftsTakeRowsThatAreLeft) {
  PagePool pool(8);
  SchedulerOptions options;
  options.max_rows = 3;
  Scheduler scheduler(pool, options);
  const auto a = scheduler.add({prompt(10, 0), 4}), b = scheduler.add({prompt(10, 50), 4});
  for (const PlannedWork& work : scheduler.plan().prefill) {
    scheduler.done(work);
    scheduler.append(work.request, 1);
    scheduler.set_drafts(work.request, 2);
  }
  StepPlan plan = scheduler.plan();  // two own rows, one is left
  ASSERT_EQ(plan.decode.size(), 2u);
  EXPECT_EQ(plan.decode[0].drafts, 1u);
  EXPECT_EQ(plan.decode[1].drafts, 0u);
  scheduler.done(plan.decode[0]);
  scheduler.append(*a, 2);
  scheduler.accept_draft(*a);  // 13 known tokens, 12 computed: one may follow, and needs no row
  scheduler.append(*a, 3);
  scheduler.remove(*b);
  plan = scheduler.plan();
  ASSERT_EQ(plan.decode.size(), 1u);
  EXPECT_EQ(plan.decode[0].begin, 12u);
  EXPECT_EQ(plan.decode[0].drafts, 0u);
}

TEST(SchedulerHost, RowsMayBeLeftForDrafts) {
  PagePool pool(8);
  SchedulerOptions options;
  options.max_rows = 4, options.max_requests = 2;
  Scheduler scheduler(pool, options);
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(scheduler.add({prompt(10, 50 * i), 9}).ok());
  EXPECT_EQ(scheduler.plan().prefill.size(), 2u);
}

// Three generating requests with four guesses each, in seven rows: nobody's second guess before
// somebody's first, and the fourth row left goes to the first in order.
TEST(SchedulerHost, DraftRowsAreSharedOutInTurn) {
  PagePool pool(8);
  SchedulerOptions options;
  options.max_rows = 7;
  Scheduler scheduler(pool, options);
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(scheduler.add({prompt(10, 50 * i), 9}).ok());
  for (const PlannedWork& work : scheduler.plan().prefill) {
    scheduler.done(work);
    scheduler.append(work.request, 1);
    scheduler.set_drafts(work.request, 4);
  }
  const StepPlan plan = scheduler.plan();
  ASSERT_EQ(plan.decode.size(), 3u);
  EXPECT_EQ(plan.decode[0].drafts, 2u);
  EXPECT_EQ(plan.decode[1].drafts, 1u);
  EXPECT_EQ(plan.decode[2].drafts, 1u);
  // All three right of the first: three rows that are computed already.
  scheduler.done(plan.decode[0]);
  for (uint32_t i = 0; i < 3; ++i) {
    scheduler.append(plan.decode[0].request, 2 + i);
    if (i < 2) scheduler.accept_draft(plan.decode[0].request);
  }
  scheduler.remove(plan.decode[1].request), scheduler.remove(plan.decode[2].request);
  EXPECT_EQ(scheduler.plan().decode[0].begin, 13u);
}

// Low priorities under a stream of higher ones: waiting counts.
TEST(SchedulerHost, NothingStarves) {
  SchedulerOptions options;
  options.max_rows = 2, options.aging_steps = 50;
  StubEngine engine(4, options);
  for (uint32_t i = 0; i < 4; ++i) engine.add({prompt(100, 100 + i), 10, 1});
  const RequestId low = engine.add({prompt(100, 0), 10, 0});
  uint64_t steps = 0;
  for (; !engine.outcomes.count(low) || engine.outcomes[low].last_step == 0; ++steps) {
    ASSERT_LT(steps, 1000u);
    if (steps % 4 == 0) engine.add({prompt(100, 1000 + uint32_t(steps)), 10, 1});
    ASSERT_TRUE(engine.step());
  }
  EXPECT_GT(steps, 50u);  // it did wait
}

// Requests that do not fit together and take longer to replay than to be overtaken: one runs to
// its end before another goes on, or all would be preempted for ever.
TEST(SchedulerHost, EqualsDoNotPreemptEachOther) {
  SchedulerOptions options;
  options.max_rows = 2, options.aging_steps = 10;
  StubEngine engine(4, options);
  for (uint32_t i = 0; i < 3; ++i) engine.add({prompt(60, 500 * i), 140, 0});
  while (engine.unfinished()) {
    ASSERT_LT(engine.steps(), 3000u);
    ASSERT_TRUE(engine.step());
  }
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(engine.outcomes[i + 1].ids, continued(prompt(60, 500 * i), 140));
  }
}

// Random lengths, priorities and common beginnings in a cache that is too small, with cancellations
// and, where asked for, requests that move to another engine (the same one under a new id):
// everybody gets the tokens that it gets alone.
SchedulerStats expect_tokens_of_random_requests(uint64_t requests, SchedulerOptions options,
                                                double page_seconds, bool move) {
  test::Random random(9);
  options.max_rows = 8, options.max_chunk = 96, options.max_context = 400;
  options.step_seconds = 0.02, options.aging_steps = 100;
  StubEngine engine(9, options);
  engine.page_seconds = page_seconds;
  engine.scheduler.measured_swap(1, page_seconds);
  std::map<RequestId, std::vector<uint32_t>> expected;
  std::map<RequestId, uint64_t> added;
  uint64_t cancelled = 0, cancelled_swapped = 0, made = 0, moved = 0;
  const auto any_running = [&] {
    return engine.running(random.below(uint32_t(engine.unfinished())));
  };
  while (made < requests || engine.unfinished()) {
    while (made < requests && engine.unfinished() < 20 && random.below(3)) {
      RequestSpec spec;
      spec.prompt = prompt(1 + random.below(random.below(4) ? 40 : 300), random.below(3) * 1000);
      spec.max_new_tokens = 1 + random.below(random.below(4) ? 12 : 90);
      spec.priority = int32_t(random.below(3));
      auto ids = continued(spec.prompt, spec.max_new_tokens);
      const RequestId id = engine.add(std::move(spec));
      expected[id] = std::move(ids), added[id] = engine.steps();
      ++made;
    }
    if (random.below(40) == 0 && engine.unfinished()) {
      const RequestId id = any_running();
      cancelled_swapped += engine.scheduler.rows(id).where == RowsKept::Where::kSwapSpace;
      engine.cancel(id);
      expected.erase(id), ++cancelled;
    }
    if (move && random.below(20) == 0 && engine.unfinished()) {
      const RequestId id = any_running();
      StubState state = engine.state(id);
      moved += state.spec.computed > 0;
      engine.cancel(id);
      const RequestId other = engine.import(std::move(state));
      expected[other] = expected[id], added[other] = engine.steps();
      expected.erase(id);
    }
    const bool worked = engine.step();
    EXPECT_TRUE(worked || engine.unfinished() == 0) << "stuck with " << engine.unfinished();
    if (!worked && engine.unfinished()) break;
    if (testing::Test::HasFatalFailure()) break;
  }
  uint64_t longest = 0;
  for (const auto& [id, ids] : expected) {
    EXPECT_EQ(engine.outcomes[id].ids, ids) << id;
    if (testing::Test::HasFailure()) break;
    longest = std::max(longest, engine.outcomes[id].first_step - added[id]);
  }
  const SchedulerStats stats = engine.scheduler.stats();
  EXPECT_GT(cancelled, requests / 100);
  EXPECT_EQ(cancelled_swapped > 0, stats.swapped_out_pages > 0);
  EXPECT_EQ(moved > 100, move);
  EXPECT_GT(stats.preemptions, requests / 100);
  EXPECT_GT(stats.reused_tokens, requests);
  EXPECT_LT(longest, 3000u) << "steps to a first token";
  EXPECT_EQ(engine.pool.free_pages(), 9u);
  EXPECT_EQ(stats.swap_used, 0u);
  return stats;
}

TEST(SchedulerHost, TenThousandRandomRequests) {
  const SchedulerStats stats = expect_tokens_of_random_requests(10000, {}, 1e-3, false);
  EXPECT_EQ(stats.swapped_out_pages, 0u);
}

// A swap space that often is too small, then one that holds everything; requests move, too.
TEST(SchedulerHost, RandomRequestsWithSwapping) {
  for (const uint32_t swap_pages : {3u, 100u}) {
    SCOPED_TRACE(swap_pages);
    SchedulerOptions options;
    options.swap_pages = swap_pages, options.always_swap = true;
    const SchedulerStats stats = expect_tokens_of_random_requests(3000, options, 1e-3, true);
    EXPECT_GT(stats.swapped_out_pages, 100u);
    EXPECT_GT(stats.swapped_in_pages, 100u);
  }
}

// Prefill takes 1e-4 s a token and decode 1e-3 s a row, so a page's rows cost 6.4e-3 s or more.
TEST(SchedulerHost, MeasuredTimesChooseWhetherPagesAreKept) {
  SchedulerOptions options;
  options.swap_pages = 100;
  const uint64_t cheap =
                     expect_tokens_of_random_requests(1000, options, 1e-5, false).swapped_out_pages,
                 middling =
                     expect_tokens_of_random_requests(1000, options, 4e-3, false).swapped_out_pages,
                 dear =
                     expect_tokens_of_random_requests(1000, options, 1.0, false).swapped_out_pages;
  EXPECT_GT(cheap, middling);
  EXPECT_GT(middling, 0u);
  EXPECT_EQ(dear, 0u);
}

// The comparison of swap.h, term by term.
TEST(SwapHost, KeepsWhatIsDearerToComputeAgain) {
  SwapPolicy policy;
  RunningMean token, row, unknown;
  token.add(1e-4), row.add(1e-3);
  const SwapPolicy::Rows rows{.prompt = 100, .whole_pages = 64, .generated = 20, .pages = 2};
  EXPECT_FALSE(policy.keeps(rows, token, row)) << "a page's time is unknown";
  policy.moved(4, 4 * 7.4e-3);  // 2 * 2 * 7.4e-3 = 0.0296 < 100 * 1e-4 + 20 * 1e-3 = 0.03
  EXPECT_TRUE(policy.keeps(rows, token, row));
  EXPECT_FALSE(policy.keeps(rows, unknown, row));
  EXPECT_FALSE(policy.keeps(rows, token, unknown));
  EXPECT_TRUE(policy.keeps({.prompt = 0, .generated = 30, .pages = 1}, unknown, row));
  EXPECT_TRUE(policy.keeps({.prompt = 200, .generated = 0, .pages = 1}, token, unknown));
  EXPECT_FALSE(policy.keeps({.prompt = 140, .generated = 0, .pages = 1}, token, row));
  policy.returned(128, 32);  // a quarter: 0.03 - 0.25 * 64 * 1e-4 = 0.0284
  EXPECT_FALSE(policy.keeps(rows, token, row));
  policy.returned(0, 0);  // says nothing
  const SwapPolicy::Rows fewer{.prompt = 100, .whole_pages = 12, .generated = 20, .pages = 2};
  EXPECT_TRUE(policy.keeps(fewer, token, row));  // 0.03 - 0.25 * 12 * 1e-4 = 0.0297
}

TEST(SwapHost, SpaceIsHandedOutOnce) {
  SwapSpace space(4);
  EXPECT_EQ(space.take(3), (std::vector<uint32_t>{0, 1, 2}));
  space.give_back(std::vector<uint32_t>{1});
  EXPECT_EQ(space.free_pages(), 2u);
  EXPECT_EQ(space.take(2), (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(space.free_pages(), 0u);
  EXPECT_TRUE(space.take(0).empty());
}

TEST(SchedulerHost, RefusesStatesThatCannotBe) {
  PagePool pool(8);
  Scheduler scheduler(pool, {});
  const auto message = [&](std::vector<uint32_t> generated, uint32_t computed) {
    RequestSpec spec{prompt(10, 0), 4};
    spec.generated = std::move(generated), spec.computed = computed;
    return scheduler.add(std::move(spec)).status().message();
  };
  EXPECT_EQ(message({1, 2, 3, 4}, 0),
            "scheduler: generated tokens must be fewer than max_new_tokens of 4, got 4");
  EXPECT_EQ(message({1, 2}, 12),
            "scheduler: computed rows must be fewer than the 12 tokens, got 12");
  EXPECT_EQ(message({1, 2}, 11), "");
}

// A day of serving in short: 200,000 steps with requests that come, are cancelled, run out of time,
// are preempted and end; the pages balance after every step, and nobody waits for ever.
TEST(SchedulerHost, SoakOfTwoHundredThousandSteps) {
  struct Alive {
    std::vector<uint32_t> expected;
    uint64_t added = 0, deadline = 0;  // steps
  };
  test::Random random(21);
  SchedulerOptions options;
  options.max_rows = 8, options.max_chunk = 96, options.max_context = 400;
  options.step_seconds = 0.02, options.aging_steps = 100;
  StubEngine engine(9, options);
  std::map<RequestId, Alive> alive;
  uint64_t finished = 0, cancelled = 0, late = 0, longest = 0;
  const auto cancel = [&](std::map<RequestId, Alive>::iterator it) {
    engine.cancel(it->first);
    engine.outcomes.erase(it->first);
    return alive.erase(it);
  };
  while (engine.steps() < 200'000) {
    while (alive.size() < 20 && random.below(3)) {
      RequestSpec spec;
      spec.prompt = prompt(1 + random.below(random.below(4) ? 40 : 300), random.below(3) * 1000);
      spec.max_new_tokens = 1 + random.below(random.below(4) ? 12 : 90);
      spec.priority = int32_t(random.below(3));
      Alive request{continued(spec.prompt, spec.max_new_tokens), engine.steps(), UINT64_MAX};
      if (random.below(5) == 0) request.deadline = engine.steps() + random.below(400);
      alive.emplace(engine.add(std::move(spec)), std::move(request));
    }
    if (random.below(30) == 0 && !alive.empty()) {
      (void)cancel(std::next(alive.begin(), random.below(uint32_t(alive.size()))));
      ++cancelled;
    }
    const bool worked = engine.step();
    ASSERT_TRUE(worked || engine.unfinished() == 0) << "stuck with " << engine.unfinished();
    ASSERT_NO_FATAL_FAILURE(engine.expect_balance());
    for (auto it = alive.begin(); it != alive.end();) {
      const auto outcome = engine.outcomes.find(it->first);
      if (outcome == engine.outcomes.end()) {
        longest = std::max(longest, engine.steps() - it->second.added);
      } else if (outcome->second.last_step) {
        ASSERT_EQ(outcome->second.ids, it->second.expected);
        engine.outcomes.erase(outcome);
        it = alive.erase(it), ++finished;
        continue;
      }
      const bool is_late = engine.steps() >= it->second.deadline;
      late += is_late;
      it = is_late ? cancel(it) : std::next(it);
    }
  }
  EXPECT_GT(finished, 20'000u);
  EXPECT_GT(cancelled, 2'000u);
  EXPECT_GT(late, 500u);
  EXPECT_GT(engine.scheduler.stats().preemptions, 5'000u);
  EXPECT_LT(longest, 3000u) << "steps to a first token";
  while (!alive.empty()) (void)cancel(alive.begin());
  engine.expect_balance();
  EXPECT_EQ(engine.pool.free_pages(), 9u);
}

}  // namespace
}  // namespace hadal::runtime
