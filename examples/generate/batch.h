// hadal-generate --prompts: many prompts through the engine at once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/program.h"
#include "common/speculation.h"
#include "hadal/runtime/sampling_options.h"

namespace hadal::examples {

struct BatchRequest {
  ModelRequest model;
  std::string prompts_file;  // one prompt per line
  uint32_t rows = 32;        // prompts that generate together
  uint32_t max_new_tokens = 200;
  runtime::SamplingOptions sampling;
  std::vector<std::string> stop;     // strings that end a text, in front of them
  std::optional<uint32_t> logprobs;  // EngineRequest's
  std::optional<std::string> trace_file;
  SpeculationFlags speculation;
  bool ignore_eos = false, quiet = false;
};

// Prints one JSON object per prompt, in the file's order, as soon as it and those before it are
// done; statistics on standard error.
[[nodiscard]] Status generate_batch(const BatchRequest& request);

}  // namespace hadal::examples
