// A fuzz target per entry point of the engine's C ABI that takes sizes, numbers or bytes: refused
// with a status and a message, or done. What may not happen is a crash, a hang, a validation
// message, an error without a text, a request whose pages stay behind, or an output that a failing
// call has changed.
#pragma once

#include <string>
#include <vector>

#include "fuzz/bytes.h"
#include "fuzz/engine_world.h"
#include "fuzz/seeds.h"

namespace hadal::fuzz {

[[nodiscard]] Outcome tokenizer_text(EngineWorld& world, Bytes bytes);  // encode, decode, id
// A conversation: a letter (the template and flags), then lines: messages, tools, variables.
[[nodiscard]] Outcome tokenizer_chat(EngineWorld& world, Bytes bytes);
[[nodiscard]] Outcome engine_facts(EngineWorld& world, Bytes bytes);    // all that describe
[[nodiscard]] Outcome engine_options(EngineWorld& world, Bytes bytes);  // plan, then load if small
[[nodiscard]] Outcome engine_warm_up(EngineWorld& world, Bytes bytes);
// Requests that are added, stepped, cancelled, exported and imported as the bytes say.
[[nodiscard]] Outcome engine_request(EngineWorld& world, Bytes bytes);
// A state of the world, changed as the bytes say, with the right checksum or not.
[[nodiscard]] Outcome engine_import(EngineWorld& world, Bytes bytes);

// Of one run: accepted where the library did what it was asked for.
struct EngineTarget {
  const char* name;
  Outcome (*run)(EngineWorld& world, Bytes bytes);
  bool device;  // needs one
  int rounds;   // of random bytes that every test run has time for
};
[[nodiscard]] std::span<const EngineTarget> engine_targets();

// Bytes that a run uses at most, about.
inline constexpr size_t kEngineBytes = 800;
// The target's kept seeds, behind 20 of random bytes, the same ones in every run.
[[nodiscard]] std::vector<Seed> engine_seeds(const std::string& target);

}  // namespace hadal::fuzz
