// What a sequence's penalties and biases change: an entry for each token that occurred as far as
// they ask, kept while tokens come and go at the end. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "hadal/logit_adjust.h"
#include "hadal/runtime/sampling_options.h"

namespace hadal::runtime {

class TokenHistory {
 public:
  // Prompt tokens count only with a repetition penalty, generated ones with any penalty.
  TokenHistory(const SamplingOptions& options, std::span<const uint32_t> prompt);

  void push(uint32_t id);
  void pop();
  [[nodiscard]] std::span<const uint32_t> generated() const { return generated_; }
  // Different ids, at most as many as there are tokens and biases.
  [[nodiscard]] std::span<const LogitEdit> edits() const { return edits_; }

 private:
  [[nodiscard]] LogitEdit& edit(uint32_t id);
  bool counts_;
  std::vector<uint32_t> generated_;
  std::vector<LogitEdit> edits_;                   // in the order of their first token
  std::unordered_map<uint32_t, uint32_t> places_;  // of ids in edits_
};

}  // namespace hadal::runtime
