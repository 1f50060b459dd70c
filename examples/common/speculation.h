// Flags of the programs that draft tokens, and what they mean for engine and model.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "common/program.h"
#include "hadal/runtime/engine.h"

namespace hadal::examples {

struct SpeculationFlags {
  std::string source;  // "mtp", "ngram" or "both"; empty: nothing is drafted
  uint32_t depth = 1;
  bool always = false;  // also where it does not pay
};

// --speculate, --draft-depth and --always-draft. `flags` must outlive the parsing. Returns the
// first, for what it needs.
CLI::Option* add_speculation_options(CLI::App& app, SpeculationFlags& flags);
// Behind EngineOptions::max_rows and all else that does not speculate: rows beside each token for
// guesses, and the MTP layer where it makes them.
void apply_speculation(const SpeculationFlags& flags, runtime::EngineOptions& options,
                       ModelRequest& model);

}  // namespace hadal::examples
