// Guesses without a device: what n-gram look-up gives, and whether the policy drafts where it pays
// and nowhere else.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "hadal/runtime/draft_policy.h"
#include "hadal/runtime/ngram_drafter.h"
#include "support/random.h"

namespace hadal::runtime {
namespace {

using Ids = std::vector<uint32_t>;

TEST(NgramDrafterHost, GivesWhatFollowedBefore) {
  NgramDrafter drafter;
  Ids ids = {5, 6, 7, 8, 9, 1, 5, 6};
  EXPECT_EQ(drafter.draft(ids, 3), (Ids{7, 8, 9}));
  EXPECT_EQ(drafter.draft(ids, 1), (Ids{7}));
  EXPECT_EQ(drafter.draft(ids, 100), (Ids{7, 8, 9, 1, 5, 6}));  // up to the end
  EXPECT_EQ(drafter.draft(ids, 0), Ids());
  ids.push_back(2);  // "6 2" stood nowhere
  EXPECT_EQ(drafter.draft(ids, 3), Ids());
  EXPECT_EQ(NgramDrafter().draft({}, 3), Ids());
  EXPECT_EQ(NgramDrafter().draft(Ids{4}, 3), Ids());
  EXPECT_EQ(NgramDrafter().draft(Ids{4, 4}, 3), Ids());
  EXPECT_EQ(NgramDrafter().draft(Ids{4, 4, 4}, 3), (Ids{4}));
}

TEST(NgramDrafterHost, LongerAgreementGoesFirstThenTheLatest) {
  // "2 3" stood at three places; in front of the first of them there is a 1, as at the end.
  EXPECT_EQ(NgramDrafter().draft(Ids{1, 2, 3, 10, 9, 2, 3, 11, 8, 2, 3, 12, 1, 2, 3}, 1),
            (Ids{10}));
  EXPECT_EQ(NgramDrafter().draft(Ids{1, 2, 3, 10, 9, 2, 3, 11, 8, 2, 3, 12, 7, 2, 3}, 1),
            (Ids{12}));
}

// The same as the definition read literally: of the latest kMostPlaces places of the last two
// tokens the one that agrees most, the latest of those.
TEST(NgramDrafterHost, EqualsTheDefinitionOnRandomTexts) {
  test::Random random(3);
  uint32_t found = 0;
  for (uint32_t run = 0; run < 40; ++run) {
    NgramDrafter drafter;
    Ids ids;
    const uint32_t alphabet = 2 + random.below(12);
    while (ids.size() < 400) {
      for (uint32_t more = 1 + random.below(5); more; --more) ids.push_back(random.below(alphabet));
      const size_t n = ids.size();
      size_t best = 0, longest = 0, places = 0;
      for (size_t end = n - 1; end >= 2 && places < NgramDrafter::kMostPlaces; --end) {
        size_t same = 0;
        while (same < 4 && same < end && ids[end - 1 - same] == ids[n - 1 - same]) ++same;
        places += same >= 2;
        if (same >= 2 && same > longest) longest = same, best = end;
      }
      Ids expected;
      for (size_t i = best; longest && i < std::min(n, best + 5); ++i) expected.push_back(ids[i]);
      ASSERT_EQ(drafter.draft(ids, 5), expected) << "run " << run << ", " << n << " tokens";
      found += !expected.empty();
    }
  }
  EXPECT_GT(found, 3000u);
}

// A machine on which steps of way i take seconds[i] and give tokens[i] on average.
struct Machine {
  std::vector<double> seconds, tokens;
  double noise = 0.0;        // of a step's seconds, relative
  uint32_t spike_every = 0;  // steps between two that take ten times as long
  uint32_t requests = 1;
  [[nodiscard]] size_t best() const {
    size_t best = 0;
    for (size_t i = 1; i < seconds.size(); ++i) {
      if (tokens[i] / seconds[i] > tokens[best] / seconds[best]) best = i;
    }
    return best;
  }
};

struct Outcome {
  std::vector<uint64_t> steps;  // of each way
  double seconds = 0.0, tokens = 0.0;
  double worst = 1.0;  // the least share of plain decode's tokens at any time
};

// `count` steps. Rates count expected seconds and tokens, without the noise that the policy sees.
Outcome run(DraftPolicy& policy, const Machine& m, uint32_t count, test::Random& random) {
  Outcome o;
  o.steps.resize(m.seconds.size());
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t way = policy.way();
    ++o.steps[way];
    double seconds = m.seconds[way] * (1.0 + m.noise * random.uniform(-1, 1));
    if (m.spike_every && random.below(m.spike_every) == 0) seconds *= 10;
    // Whole tokens: the mean's two neighbours, in its proportion.
    const double low = std::floor(m.tokens[way]);
    const double tokens = low + (random.uniform(0, 1) < m.tokens[way] - low);
    o.seconds += m.seconds[way], o.tokens += m.tokens[way];
    // What a step may take before the policy has seen it cannot be helped.
    const double first = *std::max_element(m.seconds.begin(), m.seconds.end());
    o.worst = std::min(o.worst, (o.tokens + first) / (o.seconds * m.tokens[0] / m.seconds[0]));
    policy.measured(way, m.requests, seconds, tokens);
  }
  return o;
}

// Small noise, large noise, spikes: the bar is 0.97 of plain decode at any time.
TEST(DraftPolicyHost, NeverMuchSlowerThanPlainSteps) {
  const std::vector<Machine> machines = {
      {{1, 2.1}, {1, 1.6}},
      {{1, 1.7}, {1, 1.6}},
      {{1, 2.1, 3.2, 5.0, 9.0}, {1, 1.6, 1.9, 2.1, 2.2}},
      {{1, 8.0}, {1, 1.0}},
      {{1, 1.2}, {1, 1.6}},
  };
  for (Machine m : machines) {
    for (const double noise : {0.0, 0.05, 0.3}) {
      for (uint32_t seed = 0; seed < 5; ++seed) {
        m.noise = noise, m.spike_every = seed % 2 ? 50 : 0;
        DraftPolicy policy(uint32_t(m.seconds.size()));
        test::Random random(seed);
        const Outcome o = run(policy, m, 20000, random);
        EXPECT_GT(o.worst, 0.97) << m.seconds.back() << " noise " << noise << " seed " << seed;
        if (m.best() != 0) continue;
        EXPECT_GT(o.tokens / o.seconds, 0.975) << m.seconds.back() << " noise " << noise;
      }
    }
  }
}

TEST(DraftPolicyHost, KeepsWhatGivesMostTokensPerSecond) {
  const std::vector<Machine> machines = {
      {{1, 1.2}, {1, 1.6}},
      {{1, 1.45}, {1, 1.6}},                      // by 10 %
      {{1, 1.2, 1.35, 1.8}, {1, 1.6, 2.0, 2.2}},  // two deep
      {{1, 1.02, 1.6, 2.4}, {1, 1.3, 1.4, 1.5}},  // only the first pays
      {{1, 1.3}, {1, 1.1}},
  };
  for (Machine m : machines) {
    for (uint32_t seed = 0; seed < 5; ++seed) {
      m.noise = 0.1, m.spike_every = 200;
      DraftPolicy policy(uint32_t(m.seconds.size()));
      test::Random random(seed);
      (void)run(policy, m, 4000, random);  // it finds out
      const Outcome o = run(policy, m, 20000, random);
      const size_t best = m.best();
      EXPECT_GT(o.tokens / o.seconds, 0.97 * m.tokens[best] / m.seconds[best])
          << "way " << best << ", seed " << seed;
    }
  }
}

TEST(DraftPolicyHost, TriesEveryWayAndThenSeldom) {
  Machine m{{1, 2.0, 3.0}, {1, 1.6, 1.9}};
  DraftPolicy policy(3);
  test::Random random(1);
  const Outcome early = run(policy, m, 3000, random);
  for (const uint64_t steps : early.steps) EXPECT_GE(steps, DraftPolicy::kTrialSteps);
  (void)run(policy, m, 60000, random);
  const Outcome late = run(policy, m, 60000, random);
  EXPECT_GT(late.steps[1], 0u);
  EXPECT_LT(late.steps[1] + late.steps[2], 600u);
}

TEST(DraftPolicyHost, FollowsChanges) {
  Machine pays{{1, 1.2}, {1, 1.6}}, costs{{1, 2.0}, {1, 1.2}};
  pays.noise = costs.noise = 0.1;
  DraftPolicy policy(2);
  test::Random random(2);
  (void)run(policy, pays, 3000, random);
  EXPECT_EQ(policy.way(), 1u);
  const Outcome worse = run(policy, costs, 3000, random);
  EXPECT_LT(worse.steps[1], 150u);  // the memory of 64 steps, and one trial more
  // Back again: at the next trial, which is at most kMostPauseSteps away.
  (void)run(policy, pays, DraftPolicy::kMostPauseSteps + 1000, random);
  EXPECT_GT(run(policy, pays, 2000, random).steps[1], 1800u);
}

// Two rows cost twice one, 64 hardly more than 32: what is right for one request is not for many.
TEST(DraftPolicyHost, KnowsHowManyRequestsShareAStep) {
  Machine one{{1, 2.1}, {1, 1.6}}, many{{4, 5}, {1, 1.6}};
  many.requests = 32;
  DraftPolicy policy(2);
  test::Random random(4);
  for (uint32_t i = 0; i < 30; ++i) {
    (void)run(policy, one, 100, random);
    (void)run(policy, many, 100, random);
  }
  EXPECT_LT(run(policy, one, 400, random).steps[1], 40u);
  EXPECT_GT(run(policy, many, 400, random).steps[1], 360u);
}

TEST(DraftPolicyHost, OneWayIsPlain) {
  DraftPolicy policy(1);
  for (uint32_t i = 0; i < 3000; ++i) {
    ASSERT_EQ(policy.way(), 0u);
    policy.measured(0, 1, 1.0, 1.0);
  }
}

}  // namespace
}  // namespace hadal::runtime
