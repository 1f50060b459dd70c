// What becomes of an engine's requests: their tokens and how they ended.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <vector>

#include "hadal/runtime/engine.h"

namespace hadal::test {

inline runtime::EngineRequest request(uint32_t length, uint32_t first, uint32_t tokens) {
  runtime::EngineRequest r;
  for (uint32_t i = 0; i < length; ++i) r.prompt.push_back(3 + (first + i * 7) % 400);
  r.max_new_tokens = tokens;
  return r;
}

struct Outcome {
  std::vector<uint32_t> ids;
  runtime::FinishReason finish = runtime::FinishReason::kNone;
  Status status;
};
using Outcomes = std::map<runtime::RequestId, Outcome>;

// One step; every request ends once.
inline void step(runtime::Engine& engine, Outcomes& outcomes) {
  const auto tokens = engine.step();
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  for (const runtime::EngineToken& token : *tokens) {
    Outcome& outcome = outcomes[token.request];
    EXPECT_EQ(outcome.finish, runtime::FinishReason::kNone);
    if (token.has_token) outcome.ids.push_back(token.id);
    outcome.finish = token.finish, outcome.status = token.status;
    EXPECT_EQ(token.status.ok(), token.finish != runtime::FinishReason::kFailed);
  }
}

inline void run(runtime::Engine& engine, Outcomes& outcomes) {
  while (!engine.idle() && !testing::Test::HasFatalFailure()) step(engine, outcomes);
}

inline std::vector<uint32_t> tokens_of(runtime::Engine& engine, const runtime::EngineRequest& r) {
  Outcomes outcomes;
  const auto id = engine.add(r);
  EXPECT_TRUE(id.ok()) << id.status().message();
  run(engine, outcomes);
  EXPECT_EQ(outcomes[*id].finish, runtime::FinishReason::kLength);
  return outcomes[*id].ids;
}

}  // namespace hadal::test
