// How answers are drawn, and what /set says and changes of it. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "hadal/runtime/sampling_options.h"
#include "hadal/status.h"

namespace hadal::chat {

struct Settings {
  // DeepSeek's advice for V3.1 and R1; a greedy answer of these models repeats itself.
  runtime::SamplingOptions sampling{.temperature = 0.6f, .top_p = 0.95f, .logit_bias = {}};
  std::optional<uint64_t> seed;  // of every answer; none: another one each time
  uint32_t max_tokens = 0;       // of an answer; 0: to the context's end
};

// "NAME VALUE". Errors: kInvalidArgument naming what is wrong; nothing is changed then.
[[nodiscard]] Status change_setting(Settings& settings, std::string_view text);
// A line for each setting.
[[nodiscard]] std::string settings_text(const Settings& settings);

}  // namespace hadal::chat
