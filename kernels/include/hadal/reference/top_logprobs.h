// CPU reference of top_logprobs (hadal/top_logprobs.h), one row at a time, in double.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/top_logprobs.h"

namespace hadal::reference {

struct LogprobRow {
  std::vector<double> logprobs;   // [vocab]
  std::vector<double> distances;  // max - logit [vocab]; infinity where the logprob is -infinity
  double mass = 0.0;              // sum of exp(-distance)
  std::vector<uint32_t> top_ids;  // the `top` most probable, equal ones by id
};

[[nodiscard]] LogprobRow logprobs(std::span<const float> logits, uint32_t top);

}  // namespace hadal::reference
