// The scheduler without a device (support/stub_engine.h): what it plans, in which order, and what
// it refuses. Random requests: scheduler_random_test.
#include "hadal/runtime/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "support/stub_engine.h"

namespace hadal::runtime {
namespace {

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

}  // namespace
}  // namespace hadal::runtime
