// How a request's tokens are drawn. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hadal/status.h"

namespace hadal::runtime {

struct LogitBias {
  uint32_t id = 0;
  float value = 0.0f;  // added to the logit of id
};

// The logits are first adjusted (hadal/logit_adjust.h), then cut and drawn from (hadal/sample.h).
struct SamplingOptions {
  float temperature = 0.0f;  // 0: greedy
  uint32_t top_k = 0;        // 0: off
  float top_p = 1.0f;        // 1: off
  float min_p = 0.0f;        // 0: off
  uint64_t seed = 0;
  float repetition_penalty = 1.0f;    // of prompt and generated tokens; 1: off
  float presence_penalty = 0.0f;      // of generated tokens, once; -2 to 2
  float frequency_penalty = 0.0f;     // of generated tokens, for each time; -2 to 2
  std::vector<LogitBias> logit_bias;  // different ids; values -100 to 100
};

// Ok, or kInvalidArgument naming the option out of range.
[[nodiscard]] Status check_sampling(const SamplingOptions& options);
// Also ids of biases that are not below `vocab`.
[[nodiscard]] Status check_sampling(const SamplingOptions& options, uint32_t vocab);

// Which tokens may follow, for grammars: sets bit id % 32 of word id / 32 for each allowed id and
// returns true, or returns false: all. The words are 0 before; at least one bit below the
// vocabulary must be set. A pure function of the generated tokens: it is called on the thread that
// steps, for each row that is drawn from, again for a preempted request's earlier tokens, and with
// guessed tokens behind the drawn ones, all of which it has allowed before.
using TokenMask =
    std::function<bool(std::span<const uint32_t> generated, std::span<uint32_t> allowed_bits)>;

struct TokenLogprob {
  uint32_t id = 0;
  float logprob = 0.0f;  // -infinity where the probability is 0
  bool operator==(const TokenLogprob&) const = default;
};

// Of the model's own logits: before penalties, biases, masks, temperature and cuts.
struct TokenLogprobs {
  float chosen = 0.0f;            // of the drawn token
  std::vector<TokenLogprob> top;  // of the most probable ones, equal ones by id
  bool operator==(const TokenLogprobs&) const = default;
};

}  // namespace hadal::runtime
