// Random requests for an engine on the small checkpoint, and what each gives alone.
#pragma once

#include "hadal/runtime/engine.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "support/golden.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/served_model.h"

namespace hadal::test {

// With common beginnings; sampled, penalised, masked and with log-probabilities or not; prompt and
// new tokens fit.
[[nodiscard]] runtime::EngineRequest random_request(Random& random, uint32_t context);
// What a request gave.
struct Given {
  std::vector<uint32_t> ids;
  std::vector<runtime::TokenLogprobs> logprobs;
  bool operator==(const Given&) const = default;
};

[[nodiscard]] Given alone(runtime::Generator& generator, const runtime::EngineRequest& request);
// At most 40 requests in 6 pages, 6 at a time: preempted, with common prefixes, cancelled. Fails
// the test where one's tokens are not those that it gets alone.
runtime::EngineStats expect_tokens_as_alone(runtime::EngineOptions options, uint32_t requests = 40);

}  // namespace hadal::test
