// Sampling options, and the history that penalties count.
#include "hadal/runtime/sampling_options.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "hadal/runtime/token_history.h"
#include "support/random.h"

namespace hadal::test {
namespace {

using runtime::SamplingOptions;

TEST(SamplingOptionsHost, RefusesEveryBrokenRuleByName) {
  const auto refused = [](const std::function<void(SamplingOptions&)>& change) {
    SamplingOptions options;
    change(options);
    const Status status = check_sampling(options, 100);
    EXPECT_TRUE(status.ok() || status.code() == Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& o) { o.temperature = -1; }),
            "sampling: temperature must be at least 0, got -1");
  EXPECT_EQ(refused([](auto& o) { o.temperature = INFINITY; }),
            "sampling: temperature must be at least 0, got inf");
  EXPECT_EQ(refused([](auto& o) { o.top_p = 0; }),
            "sampling: top_p must be above 0 and at most 1, got 0");
  EXPECT_EQ(refused([](auto& o) { o.min_p = 1.5f; }), "sampling: min_p must be 0 to 1, got 1.5");
  for (float bad : {0.0f, -1.0f, 1e-40f, float(INFINITY), float(NAN)}) {
    EXPECT_NE(refused([&](auto& o) {
                o.repetition_penalty = bad;
              }).find("sampling: repetition_penalty must be above 0 and a normal float, got "),
              std::string::npos)
        << bad;
  }
  EXPECT_EQ(refused([](auto& o) { o.repetition_penalty = 0.01f; }), "");
  EXPECT_EQ(refused([](auto& o) { o.presence_penalty = -2.5f; }),
            "sampling: presence_penalty must be -2 to 2, got -2.5");
  EXPECT_EQ(refused([](auto& o) { o.frequency_penalty = 2.5f; }),
            "sampling: frequency_penalty must be -2 to 2, got 2.5");
  EXPECT_NE(refused([](auto& o) { o.frequency_penalty = NAN; }), "");
  EXPECT_EQ(refused([](auto& o) { o.presence_penalty = 2, o.frequency_penalty = -2; }), "");
  EXPECT_EQ(refused([](auto& o) {
              o.logit_bias = {{1, 100}, {2, -101}};
            }),
            "sampling: logit_bias must be -100 to 100, got -101");
  EXPECT_EQ(refused([](auto& o) {
              o.logit_bias = {{7, 1}, {8, 1}, {7, 2}};
            }),
            "sampling: ids of logit_bias must be different, got 7 twice");
  EXPECT_EQ(refused([](auto& o) {
              o.logit_bias = {{99, 1}, {100, 1}};
            }),
            "sampling: ids of logit_bias must be below 100, got 100");
}

// Counted anew from the tokens.
std::vector<LogitEdit> counted(const SamplingOptions& o, const std::vector<uint32_t>& prompt,
                               const std::vector<uint32_t>& generated) {
  std::map<uint32_t, LogitEdit> edits;
  const bool repeats = o.repetition_penalty != 1.0f;
  if (repeats) {
    for (uint32_t id : prompt) ++edits[id].prompt;
  }
  if (repeats || o.presence_penalty != 0.0f || o.frequency_penalty != 0.0f) {
    for (uint32_t id : generated) ++edits[id].generated;
  }
  for (const auto& bias : o.logit_bias) edits[bias.id].bias = bias.value;
  std::vector<LogitEdit> result;
  for (auto& [id, edit] : edits) edit.id = id, result.push_back(edit);
  return result;
}

TEST(TokenHistoryHost, CountsWhatIsThereAfterAnyPushesAndPops) {
  Random random(1);
  for (uint32_t kind = 0; kind < 16; ++kind) {
    SamplingOptions options;
    if (kind & 1) options.repetition_penalty = 1.5f;
    if (kind & 2) options.presence_penalty = 0.5f;
    if (kind & 4) options.frequency_penalty = -0.5f;
    if (kind & 8) options.logit_bias = {{3, 1.5f}, {17, -2.0f}, {40, 3.0f}};
    std::vector<uint32_t> prompt, generated;
    for (uint32_t i = 0; i < random.below(30); ++i) prompt.push_back(random.below(25));
    runtime::TokenHistory history(options, prompt);
    for (int step = 0; step < 500; ++step) {
      if (!generated.empty() && random.below(5) < 2) {
        history.pop();
        generated.pop_back();
      } else {
        generated.push_back(random.below(25));
        history.push(generated.back());
      }
      std::vector<LogitEdit> edits(history.edits().begin(), history.edits().end());
      std::sort(edits.begin(), edits.end(), [](auto& a, auto& b) { return a.id < b.id; });
      ASSERT_EQ(edits, counted(options, prompt, generated)) << kind << ", " << step;
      ASSERT_TRUE(std::ranges::equal(history.generated(), generated));
    }
  }
}

}  // namespace
}  // namespace hadal::test
