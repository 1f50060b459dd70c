// Text, stop strings and deadlines of the engine: against decoding all its tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "hadal/runtime/engine.h"
#include "support/golden.h"
#include "support/random.h"
#include "support/served_model.h"

namespace hadal::test {
namespace {

using runtime::FinishReason;
using Clock = std::chrono::steady_clock;

const model::Tokenizer& tokenizer() {
  static const auto loaded = model::Tokenizer::load(kFables).value();
  return loaded;
}

struct Outcome {
  std::vector<uint32_t> ids;
  std::string text;
  FinishReason finish = FinishReason::kNone;
};

Outcome run(runtime::Engine& engine, const runtime::EngineRequest& request) {
  Outcome outcome;
  const auto id = engine.add(request);
  EXPECT_TRUE(id.ok()) << id.status().message();
  while (id.ok() && !engine.idle()) {
    const auto tokens = engine.step();
    if (!tokens.ok()) break;
    for (const runtime::EngineToken& token : *tokens) {
      EXPECT_EQ(outcome.finish, FinishReason::kNone);
      if (token.has_token) outcome.ids.push_back(token.id);
      outcome.text += token.text, outcome.finish = token.finish;
    }
  }
  return outcome;
}

runtime::EngineRequest fable(uint32_t tokens) {
  runtime::EngineRequest request;
  request.prompt = load_golden("fables_king").ids, request.max_new_tokens = tokens;
  return request;
}

class EngineTextGpu : public GpuTest {};

// Every stop string cut out of the text that is generated without one: the text ends in front of
// its first appearance, and generation behind the token that completes it, drafted or not.
TEST_F(EngineTextGpu, StopStringsEndTheText) {
  for (const bool speculate : {false, true}) {
    Served served(8, 2, 256);
    ASSERT_TRUE(served.model.ok());
    runtime::EngineOptions options;
    options.speculate = options.always_draft = speculate, options.tokenizer = &tokenizer();
    runtime::Engine engine = served.engine(options);
    runtime::EngineRequest request = fable(60);
    const Outcome all = run(engine, request);
    ASSERT_EQ(all.finish, FinishReason::kLength);
    ASSERT_EQ(all.text, *tokenizer().decode(all.ids));
    Random random(3);
    for (int i = 0; i < 20; ++i) {
      const size_t at = random.below(uint32_t(all.text.size()));
      request.stop = {"never in a fable", all.text.substr(at, 1 + random.below(12))};
      const size_t found = all.text.find(request.stop[1]);
      size_t tokens = 0;
      std::string text;
      while (text.find(request.stop[1]) == std::string::npos) {
        text = *tokenizer().decode(std::span(all.ids).first(++tokens));
      }
      const Outcome stopped = run(engine, request);
      EXPECT_EQ(stopped.text, all.text.substr(0, found));
      EXPECT_EQ(stopped.ids.size(), tokens);
      EXPECT_TRUE(std::equal(stopped.ids.begin(), stopped.ids.end(), all.ids.begin()));
      EXPECT_EQ(stopped.finish, FinishReason::kStop);
    }
    EXPECT_EQ(engine.stats().pages.used, 0u);
  }
}

TEST_F(EngineTextGpu, StopStringsAreRefusedByName) {
  Served served(4, 2, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::EngineRequest request = fable(4);
  request.stop = {"."};
  runtime::Engine without = served.engine({});
  EXPECT_EQ(without.add(request).status().message(),
            "engine: stop strings need EngineOptions::tokenizer, got none");
  runtime::EngineOptions options;
  options.tokenizer = &tokenizer();
  runtime::Engine engine = served.engine(options);
  request.stop = {""};
  EXPECT_EQ(engine.check(request).message(),
            "stop: strings must have at least one character, got none at index 0");
  EXPECT_EQ(engine.add(request).status().code(), Errc::kInvalidArgument);
}

TEST_F(EngineTextGpu, DeadlinesEndRequestsBetweenSteps) {
  Served served(8, 2, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::Engine engine = served.engine({});
  const std::vector<uint32_t> expected = run(engine, fable(100)).ids;
  // One that is over already costs no step of the device.
  runtime::EngineRequest request = fable(100);
  request.deadline = Clock::now();
  const uint64_t prefilled = engine.stats().prefilled_tokens;
  Outcome outcome = run(engine, request);
  EXPECT_EQ(outcome.finish, FinishReason::kDeadline);
  EXPECT_TRUE(outcome.ids.empty());
  EXPECT_EQ(engine.stats().prefilled_tokens, prefilled);
  // One that is far changes nothing, neither does one of a request that was cancelled.
  request.deadline = Clock::now() + std::chrono::hours(1);
  EXPECT_EQ(run(engine, request).ids, expected);
  engine.cancel(*engine.add(request));
  EXPECT_TRUE(engine.idle());
  // One between two of its tokens ends it alone.
  const auto deadline = Clock::now() + std::chrono::milliseconds(200);
  const auto other = engine.add(fable(100));
  request.deadline = deadline;
  const auto late = engine.add(request);
  std::map<runtime::RequestId, Outcome> outcomes;
  const auto step = [&] {
    const auto tokens = engine.step();
    ASSERT_TRUE(tokens.ok()) << tokens.status().message();
    for (const runtime::EngineToken& token : *tokens) {
      if (token.has_token) outcomes[token.request].ids.push_back(token.id);
      outcomes[token.request].finish = token.finish;
    }
  };
  while (outcomes[*late].ids.size() < 3 && outcomes[*late].finish == FinishReason::kNone) step();
  std::this_thread::sleep_until(deadline);
  while (!engine.idle()) step();
  EXPECT_EQ(outcomes[*late].finish, FinishReason::kDeadline);
  EXPECT_LE(outcomes[*late].ids.size(), 3u);
  EXPECT_TRUE(std::equal(outcomes[*late].ids.begin(), outcomes[*late].ids.end(), expected.begin()));
  EXPECT_EQ(outcomes[*other].ids, expected);
  EXPECT_EQ(engine.stats().pages.used, 0u);
}

}  // namespace
}  // namespace hadal::test
