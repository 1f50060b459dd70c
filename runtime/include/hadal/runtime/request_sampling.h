// A request's sampling: what each row that is drawn for it needs, from its tokens alone. So a draw
// is the same in whatever step, batch or row it happens, and behind right guesses.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hadal/runtime/sampler.h"
#include "hadal/runtime/token_history.h"

namespace hadal::runtime {

class RequestSampling {
 public:
  // `logprobs`: report the chosen token's and that many of the most probable ones'. The options
  // have passed check_sampling. Not thread-safe.
  RequestSampling(SamplingOptions options, std::optional<uint32_t> logprobs, TokenMask mask,
                  std::span<const uint32_t> prompt, uint32_t vocab);

  // Sets `row` of the sampler for the token behind `position` of the sequence `ids` (prompt and
  // generated) followed by `drafts`; positions of drafts in ascending order, behind that of the
  // last of `ids`. Errors: kInvalidArgument where the mask threw or allowed no token; then the row
  // must not be used, which behind a wrong guess it is not.
  [[nodiscard]] Status set_row(Sampler& sampler, uint32_t row, std::span<const uint32_t> ids,
                               std::span<const uint32_t> drafts, uint32_t position);
  // What it was made from.
  [[nodiscard]] const SamplingOptions& options() const { return options_; }
  [[nodiscard]] std::optional<uint32_t> asked_logprobs() const { return logprobs_; }
  [[nodiscard]] bool has_mask() const { return bool(mask_); }
  // After the recorder ran, where asked for.
  [[nodiscard]] std::optional<TokenLogprobs> logprobs(const Sampler& sampler, uint32_t row) const;

 private:
  // Makes history_ end with `position`.
  void seek(std::span<const uint32_t> ids, std::span<const uint32_t> drafts, uint32_t position);
  // Fills bits_ by the mask.
  [[nodiscard]] Status ask_mask();
  [[nodiscard]] bool allows(uint32_t id) const { return bits_[id / 32] >> (id % 32) & 1; }

  SamplingOptions options_;
  std::optional<uint32_t> logprobs_;
  TokenMask mask_;
  uint32_t prompt_tokens_, vocab_;
  bool adjusts_;
  TokenHistory history_;
  size_t drafts_ = 0;  // at the end of history_
  // Of the row set last:
  std::vector<uint32_t> bits_;  // allowed tokens
  bool masked_ = false;         // else all are
  bool reachable_ = true;       // the mask allows the drafts before it
};

}  // namespace hadal::runtime
