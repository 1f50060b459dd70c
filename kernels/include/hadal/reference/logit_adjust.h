// CPU reference of logit_adjust (hadal/logit_adjust.h), one row at a time, in double.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hadal/logit_adjust.h"

namespace hadal::reference {

// values: the adjusted logits [vocab], NaN and infinities as the kernel leaves them. magnitudes:
// sum of the terms' magnitudes where a logit was edited, else 0 (its bits stay, or it is masked).
struct AdjustedLogits {
  std::vector<double> values, magnitudes;
};

// `mask`: words of the row's mask, or empty.
[[nodiscard]] AdjustedLogits logit_adjust(std::span<const float> logits, const LogitAdjustRow& row,
                                          std::span<const LogitEdit> edits,
                                          std::span<const uint32_t> mask);

}  // namespace hadal::reference
