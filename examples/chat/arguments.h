// The flags of hadal-chat.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/settings.h"
#include "common/program.h"
#include "common/speculation.h"

namespace hadal::chat {

struct Arguments {
  examples::ModelRequest model;
  Settings settings;
  std::optional<std::string> prompt, system, system_file, chat_template;
  std::string think;  // "on", "off", or empty: as the template has it
  std::vector<std::string> stop;
  std::string generation_config = "auto";  // or none
  examples::SpeculationFlags speculation;
  bool quiet = false;
  std::function<bool(std::string_view)> given;  // whether a flag was
};

// `arguments` must outlive the parsing.
void add_arguments(CLI::App& app, Arguments& arguments);

}  // namespace hadal::chat
