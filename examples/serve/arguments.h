// The flags of hadal-serve.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/program.h"
#include "common/speculation.h"
#include "serve/server_options.h"

namespace hadal::serve {

struct Arguments {
  examples::ModelRequest model;
  ServerOptions server;
  std::string name;  // empty: the directory's
  std::optional<std::string> api_key;
  std::string api_key_file;
  uint32_t rows = 32, max_queue = 256;
  uint64_t cache_tokens = 0;
  uint32_t max_prompt_tokens = 0, swap_mib = 0;
  std::string generation_config = "auto";  // or none
  examples::SpeculationFlags speculation;
  bool quiet = false;
};

// `arguments` must outlive the parsing.
void add_arguments(CLI::App& app, Arguments& arguments);
// What follows from several flags, or from files that they name. Errors: kIo, kInvalidArgument.
[[nodiscard]] Status finish_arguments(Arguments& arguments);

}  // namespace hadal::serve
