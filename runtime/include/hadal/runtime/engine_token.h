// What an engine hands out: the tokens of its requests, and how they ended.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "hadal/runtime/sampling_options.h"
#include "hadal/runtime/scheduler.h"
#include "hadal/status.h"

namespace hadal::runtime {

enum class FinishReason {
  kNone,      // goes on
  kLength,    // max_new_tokens, or the context's end
  kStop,      // a stop id or a stop string
  kDeadline,  // its time was over
  kFailed,    // EngineToken::status says why
  kExported,  // goes on in another engine (EngineRequest::prefill_only)
};

// A token of a request, or its end, or both.
struct EngineToken {
  RequestId request = 0;
  uint32_t id = 0;        // meaningless without has_token
  bool has_token = true;  // an end that no token brought has none
  FinishReason finish = FinishReason::kNone;
  Status status{};                          // not ok with kFailed only
  std::string text{};                       // with EngineOptions::tokenizer: what may be shown now
  std::optional<TokenLogprobs> logprobs{};  // where the request asked
};

}  // namespace hadal::runtime
