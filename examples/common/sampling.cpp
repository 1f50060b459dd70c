#include "common/sampling.h"

#include <charconv>
#include <string>
#include <vector>

#include "common/program.h"

namespace hadal::examples {
namespace {

// "5=-2.5".
runtime::LogitBias parse_bias(const std::string& text) {
  runtime::LogitBias bias;
  const char *begin = text.data(), *end = begin + text.size();
  const auto id = std::from_chars(begin, end, bias.id);
  const bool has_value = id.ec == std::errc() && id.ptr != end && *id.ptr == '=';
  const auto value = std::from_chars(has_value ? id.ptr + 1 : end, end, bias.value);
  if (value.ec == std::errc() && value.ptr == end) return bias;
  throw CLI::ValidationError("--logit-bias", "must be ID=VALUE, got '" + text.substr(0, 40) + "'");
}

}  // namespace

void add_sampling_options(CLI::App& app, runtime::SamplingOptions& o) {
  app.add_option("--temperature", o.temperature, "0 is greedy")->capture_default_str();
  app.add_option("--top-k", o.top_k, "0 is off")->capture_default_str();
  app.add_option("--top-p", o.top_p, "1 is off")->capture_default_str();
  app.add_option("--min-p", o.min_p, "0 is off")->capture_default_str();
  app.add_option("--seed", o.seed)->check(refuse_inexact_integer)->capture_default_str();
  app.add_option("--repetition-penalty", o.repetition_penalty,
                 "divides the logits above 0 of tokens in prompt and text, multiplies those below; "
                 "1 is off")
      ->capture_default_str();
  app.add_option("--presence-penalty", o.presence_penalty,
                 "taken from the logits of generated tokens, -2 to 2; 0 is off")
      ->capture_default_str();
  app.add_option("--frequency-penalty", o.frequency_penalty,
                 "taken from them for each time, -2 to 2; 0 is off")
      ->capture_default_str();
  const auto add_biases = [&o](const std::vector<std::string>& biases) {
    for (const std::string& bias : biases) o.logit_bias.push_back(parse_bias(bias));
  };
  app.add_option_function<std::vector<std::string>>(
         "--logit-bias", add_biases,
         "ID=VALUE: added to the token's logit, -100 to 100; repeatable")
      ->delimiter(',')
      ->allow_extra_args(false);
}

void add_generation_config_option(CLI::App& app, std::string& which) {
  app.add_option("--generation-config", which,
                 "auto: what the checkpoint's generation_config.json says holds where nothing else "
                 "is asked for, and its end tokens end answers, too; none: it is not read")
      ->check(CLI::IsMember({"auto", "none"}))
      ->capture_default_str();
}

}  // namespace hadal::examples
