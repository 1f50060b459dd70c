// The scheduler under random requests, without a device (support/stub_engine.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "support/random.h"
#include "support/stub_engine.h"

namespace hadal::runtime {
namespace {

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
