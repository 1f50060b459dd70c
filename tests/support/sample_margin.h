// Whether a drawn id that is not the reference's was too close to call: the device's weights are
// off by at most a derived error, and a decision within it may go either way.
#pragma once

#include "hadal/reference/sample.h"
#include "support/tolerance.h"

namespace hadal::test {

// Errors of the weights as a share of the mass: of what one step of the running mass, or the mass
// up to the last token of top_p, can be off by (numerator and denominator).
[[nodiscard]] inline double sample_mass_error(const reference::SampleRow& row) {
  if (row.greedy) return 0.0;
  double error = 0.0, kept_mass = 0.0;
  for (size_t i = 0; i < row.weights.size(); ++i) {
    error += sample_weight_error(row.weights[i]);
    if (row.probabilities[i] > 0.0) kept_mass += row.weights[i];
  }
  return 2.0 * error / kept_mass + 0x1p-32;
}

[[nodiscard]] inline bool too_close_to_call(const reference::SampleRow& row, float min_p) {
  const double error = sample_mass_error(row);
  return row.draw_margin <= error || row.top_p_margin <= error ||
         row.min_p_margin <= sample_weight_error(min_p);
}

}  // namespace hadal::test
