// What a checkpoint's generation_config.json says about how its answers are drawn and where they
// end. Source: transformers' GenerationConfig (whose fields these are) and the files published with
// DeepSeek-V2-Lite, V3, R1, V3.1, Moonlight-16B-A3B and Kimi-K2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/model/config.h"
#include "hadal/status.h"

namespace hadal::model {

// None: the file does not say.
struct GenerationConfig {
  std::optional<double> temperature;  // 0 (greedy) with do_sample false, whatever the file's is
  std::optional<double> top_p;
  std::optional<uint32_t> top_k;  // 0 (the file's 0, or -1): off
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<uint32_t> max_new_tokens;
  std::vector<uint32_t> eos_token_ids;  // end an answer
};

// Parses and validates the text of a generation_config.json of `model`. `name` (a path) starts
// every message. null is absent; unknown fields are ignored, and so are those that only other ways
// of drawing read (beams). Errors: kMalformed for broken JSON and fields of a wrong type or value.
[[nodiscard]] Result<GenerationConfig> parse_generation_config(std::string_view json,
                                                               const std::string& name,
                                                               const ModelConfig& model);

// parse_generation_config over DIR/generation_config.json; all is none where there is no such file.
// Errors: kIo as well.
[[nodiscard]] Result<GenerationConfig> load_generation_config(
    const std::filesystem::path& model_dir, const ModelConfig& model);

// Where an answer ends: the ids of both files, each once, config.json's first.
[[nodiscard]] std::vector<uint32_t> end_ids(const ModelConfig& model,
                                            const GenerationConfig& generation);

}  // namespace hadal::model
