// Options of the programs that draw tokens.
#pragma once

#include <CLI/CLI.hpp>

#include <string>

#include "hadal/runtime/sampling_options.h"

namespace hadal::examples {

// --temperature and the rest of SamplingOptions. `options` must outlive the parsing.
void add_sampling_options(CLI::App& app, runtime::SamplingOptions& options);

// --generation-config auto or none: whether the checkpoint's generation_config.json is read.
void add_generation_config_option(CLI::App& app, std::string& which);

}  // namespace hadal::examples
