// What a checkpoint's generation_config.json says, as defaults of the programs that answer. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "hadal/model/generation_config.h"
#include "hadal/runtime/sampling_options.h"

namespace hadal::examples {

// Takes out what flags have said: `given` of "--temperature", "--max-tokens" and so on.
void forget_given(model::GenerationConfig& config,
                  const std::function<bool(std::string_view flag)>& given);
void apply_generation_config(const model::GenerationConfig& config,
                             runtime::SamplingOptions& options);
// "temperature 0.6, top_p 0.95"; empty where the file says nothing about drawing.
[[nodiscard]] std::string generation_text(const model::GenerationConfig& config);

}  // namespace hadal::examples
