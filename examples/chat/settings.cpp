#include "chat/settings.h"

#include <fmt/format.h>

#include <charconv>
#include <functional>
#include <vector>

namespace hadal::chat {
namespace {

template <class T>
bool read_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

struct Setting {
  std::string_view name;
  std::function<bool(Settings&, std::string_view)> set;
  std::function<std::string(const Settings&)> get;
};

template <class T>
Setting sampling(std::string_view name, T runtime::SamplingOptions::*member) {
  return {name,
          [member](Settings& s, std::string_view v) { return read_number(v, s.sampling.*member); },
          [member](const Settings& s) { return fmt::format("{}", s.sampling.*member); }};
}

std::vector<Setting> all_settings() {
  using Sampling = runtime::SamplingOptions;
  const auto set_seed = [](Settings& s, std::string_view value) {
    uint64_t seed = 0;
    if (value == "random") return s.seed.reset(), true;
    if (!read_number(value, seed)) return false;
    s.seed = seed;
    return true;
  };
  const auto seed_text = [](const Settings& s) {
    return s.seed ? fmt::format("{}", *s.seed) : std::string("random");
  };
  return {sampling("temperature", &Sampling::temperature),
          sampling("top_k", &Sampling::top_k),
          sampling("top_p", &Sampling::top_p),
          sampling("min_p", &Sampling::min_p),
          sampling("repetition_penalty", &Sampling::repetition_penalty),
          sampling("presence_penalty", &Sampling::presence_penalty),
          sampling("frequency_penalty", &Sampling::frequency_penalty),
          {"seed", set_seed, seed_text},
          {"max_tokens",
           [](Settings& s, std::string_view value) { return read_number(value, s.max_tokens); },
           [](const Settings& s) { return fmt::format("{}", s.max_tokens); }}};
}

}  // namespace

Status change_setting(Settings& settings, std::string_view text) {
  const size_t space = std::min(text.find_first_of(" ="), text.size());
  std::string name(text.substr(0, space));
  for (char& c : name) c = c == '-' ? '_' : c;
  std::string_view value = text.substr(space);
  value.remove_prefix(std::min(value.find_first_not_of(" ="), value.size()));
  std::string names;
  for (const Setting& setting : all_settings()) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", setting.name);
    if (setting.name != name) continue;
    Settings changed = settings;
    if (!setting.set(changed, value)) {
      return {Errc::kInvalidArgument,
              fmt::format("/set: {} must be a number{}, got '{}'", name,
                          name == "seed" ? " or random" : "", value.substr(0, 40))};
    }
    HADAL_TRY(runtime::check_sampling(changed.sampling));
    settings = changed;
    return {};
  }
  return {Errc::kInvalidArgument,
          fmt::format("/set: the name must be one of {}, got '{}'", names, name.substr(0, 40))};
}

std::string settings_text(const Settings& settings) {
  std::string text;
  for (const Setting& setting : all_settings()) {
    text += fmt::format("  {:<18}  {}\n", setting.name, setting.get(settings));
  }
  return text;
}

}  // namespace hadal::chat
