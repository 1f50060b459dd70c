#include "hadal/runtime/sampling_options.h"

#include <fmt/format.h>

#include <cmath>
#include <unordered_set>

namespace hadal::runtime {

Status check_sampling(const SamplingOptions& o) {
  const auto error = [](const char* rule, auto value) {
    return Status(Errc::kInvalidArgument, fmt::format("sampling: {}, got {}", rule, value));
  };
  const auto within = [](float value, float limit) { return value >= -limit && value <= limit; };
  if (!(o.temperature >= 0.0f) || std::isinf(o.temperature)) {
    return error("temperature must be at least 0", o.temperature);
  }
  if (!(o.top_p > 0.0f && o.top_p <= 1.0f)) {
    return error("top_p must be above 0 and at most 1", o.top_p);
  }
  if (!(o.min_p >= 0.0f && o.min_p <= 1.0f)) return error("min_p must be 0 to 1", o.min_p);
  // Its inverse has to be a float, too.
  if (!(o.repetition_penalty > 0.0f) || !std::isnormal(o.repetition_penalty)) {
    return error("repetition_penalty must be above 0 and a normal float", o.repetition_penalty);
  }
  if (!within(o.presence_penalty, 2.0f)) {
    return error("presence_penalty must be -2 to 2", o.presence_penalty);
  }
  if (!within(o.frequency_penalty, 2.0f)) {
    return error("frequency_penalty must be -2 to 2", o.frequency_penalty);
  }
  std::unordered_set<uint32_t> ids;
  for (const LogitBias& bias : o.logit_bias) {
    if (!within(bias.value, 100.0f)) return error("logit_bias must be -100 to 100", bias.value);
    if (!ids.insert(bias.id).second) {
      return error("ids of logit_bias must be different", fmt::format("{} twice", bias.id));
    }
  }
  return {};
}

Status check_sampling(const SamplingOptions& options, uint32_t vocab) {
  HADAL_TRY(check_sampling(options));
  for (const LogitBias& bias : options.logit_bias) {
    if (bias.id < vocab) continue;
    return {Errc::kInvalidArgument,
            fmt::format("sampling: ids of logit_bias must be below {}, got {}", vocab, bias.id)};
  }
  return {};
}

}  // namespace hadal::runtime
