#include "common/generation_defaults.h"

#include <fmt/format.h>

namespace hadal::examples {
namespace {

// Calls back with the name, the flag and the value of each field.
template <class Config, class F>
void each_field(Config& config, F&& field) {
  field("temperature", "--temperature", config.temperature);
  field("top_k", "--top-k", config.top_k);
  field("top_p", "--top-p", config.top_p);
  field("min_p", "--min-p", config.min_p);
  field("repetition_penalty", "--repetition-penalty", config.repetition_penalty);
  field("max_new_tokens", "--max-tokens", config.max_new_tokens);
}

}  // namespace

void forget_given(model::GenerationConfig& config,
                  const std::function<bool(std::string_view flag)>& given) {
  each_field(config, [&](const char*, const char* flag, auto& value) {
    if (given(flag)) value.reset();
  });
}

void apply_generation_config(const model::GenerationConfig& config,
                             runtime::SamplingOptions& options) {
  const auto take = [](const auto& value, auto& option) {
    if (value) option = static_cast<std::remove_reference_t<decltype(option)>>(*value);
  };
  take(config.temperature, options.temperature);
  take(config.top_k, options.top_k);
  take(config.top_p, options.top_p);
  take(config.min_p, options.min_p);
  take(config.repetition_penalty, options.repetition_penalty);
}

std::string generation_text(const model::GenerationConfig& config) {
  std::string text;
  each_field(config, [&](const char* name, const char*, const auto& value) {
    if (value) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, *value);
  });
  return text;
}

}  // namespace hadal::examples
