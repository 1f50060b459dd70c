// The flags of hadal-chat.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "chat/settings.h"
#include "common/program.h"
#include "hadal/runtime/drafter.h"

namespace hadal::chat {

inline const std::map<std::string, runtime::DraftSource> kDraftSources = {
    {"mtp", runtime::DraftSource::kMtp},
    {"ngram", runtime::DraftSource::kNgram},
    {"both", runtime::DraftSource::kBoth}};

struct Arguments {
  examples::ModelRequest model;
  Settings settings;
  std::optional<std::string> prompt, system, system_file, chat_template;
  std::string think;  // "on", "off", or empty: as the template has it
  std::vector<std::string> stop;
  std::string speculate;  // of kDraftSources; empty: off
  uint32_t draft_depth = 1;
  bool always_draft = false, quiet = false;
};

// `arguments` must outlive the parsing.
void add_arguments(CLI::App& app, Arguments& arguments);

}  // namespace hadal::chat
