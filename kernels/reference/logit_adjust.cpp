#include "hadal/reference/logit_adjust.h"

#include <cmath>
#include <limits>

namespace hadal::reference {

AdjustedLogits logit_adjust(std::span<const float> logits, const LogitAdjustRow& row,
                            std::span<const LogitEdit> edits, std::span<const uint32_t> mask) {
  AdjustedLogits result;
  result.values.assign(logits.begin(), logits.end());
  result.magnitudes.assign(logits.size(), 0.0);
  for (const LogitEdit& e : edits) {
    if (e.id >= logits.size() || !std::isfinite(logits[e.id])) continue;
    double l = logits[e.id];
    if (e.prompt > 0 || e.generated > 0) l *= l > 0.0 ? row.inverse_repetition : row.repetition;
    const double frequency = double(row.frequency) * e.generated;
    const double presence = e.generated > 0 ? row.presence : 0.0;
    double& value = result.values[e.id];
    value = l - frequency - presence + e.bias;
    if (std::fabs(value) > std::numeric_limits<float>::max()) {
      value = std::copysign(std::numeric_limits<double>::infinity(), value);
    }
    result.magnitudes[e.id] =
        std::fabs(l) + std::fabs(frequency) + std::fabs(presence) + std::fabs(e.bias);
  }
  for (uint32_t id = 0; id < logits.size() && !mask.empty(); ++id) {
    if (mask[id / 32] >> (id % 32) & 1) continue;
    result.values[id] = -std::numeric_limits<double>::infinity();
    result.magnitudes[id] = 0.0;
  }
  return result;
}

}  // namespace hadal::reference
