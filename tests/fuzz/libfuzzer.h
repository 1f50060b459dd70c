// What the libFuzzer programs share: HADAL_FUZZ_TARGET in the environment is the target, and the
// first folder on the command line gets its kept seeds, those in hex as bytes.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "fuzz/seeds.h"

namespace hadal::fuzz {

// The target of the environment; ends the program where there is none of that name.
template <class Target>
const Target& wanted_target(std::span<const Target> targets) {
  const char* wanted = std::getenv("HADAL_FUZZ_TARGET");
  for (const Target& target : targets) {
    if (wanted && std::strcmp(target.name, wanted) == 0) return target;
  }
  std::fprintf(stderr, "fuzz: HADAL_FUZZ_TARGET must be one of");
  for (const Target& target : targets) std::fprintf(stderr, " %s", target.name);
  std::fprintf(stderr, "\n");
  std::exit(2);
}

inline void write_seeds(int argc, char** argv, const std::vector<Seed>& seeds) {
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] == '-') continue;
    for (const Seed& seed : seeds) {
      std::ofstream(std::filesystem::path(argv[i]) / ("seed-" + seed.name), std::ios::binary)
          .write(reinterpret_cast<const char*>(seed.bytes.data()),
                 std::streamsize(seed.bytes.size()));
    }
    return;
  }
}

// What the run has found, as libFuzzer wants to hear it.
inline int report(const char* target, const Outcome& outcome) {
  if (outcome.fault.empty()) return 0;
  std::fprintf(stderr, "fuzz: %s: %s\n", target, outcome.fault.c_str());
  std::abort();
}

}  // namespace hadal::fuzz
