// The parser targets (fuzz/parsers.h) as a libFuzzer program.
#include "fuzz/libfuzzer.h"
#include "fuzz/parsers.h"

namespace {

const hadal::fuzz::ParserTarget& target() {
  static const auto& wanted = hadal::fuzz::wanted_target(hadal::fuzz::parser_targets());
  return wanted;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  hadal::fuzz::write_seeds(*argc, *argv, hadal::fuzz::seeds_of(target().name));
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return hadal::fuzz::report(target().name, target().run({data, size}));
}
