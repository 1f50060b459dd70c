// Options of the programs that draw tokens.
#pragma once

#include <CLI/CLI.hpp>

#include "hadal/runtime/sampling_options.h"

namespace hadal::examples {

// --temperature and the rest of SamplingOptions. `options` must outlive the parsing.
void add_sampling_options(CLI::App& app, runtime::SamplingOptions& options);

}  // namespace hadal::examples
