// The targets of the engine's C ABI (fuzz/engine.h) as a libFuzzer program: a host with the
// validation layer.
#include "fuzz/engine.h"
#include "fuzz/libfuzzer.h"

namespace {

const hadal::fuzz::EngineTarget& target() {
  static const auto& wanted = hadal::fuzz::wanted_target(hadal::fuzz::engine_targets());
  return wanted;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  hadal::fuzz::write_seeds(*argc, *argv, hadal::fuzz::engine_seeds(target().name));
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static hadal::fuzz::EngineWorld& world = *new hadal::fuzz::EngineWorld;  // the process's
  static uint64_t runs = 0;
  if (target().device && !world.has_device()) {
    std::fprintf(stderr, "fuzz: no Vulkan device or validation layer\n");
    std::exit(77);
  }
  if (++runs % 512 == 0) world.renew();
  hadal::fuzz::Outcome outcome = target().run(world, {data, size});
  if (world.messages() && outcome.fault.empty()) outcome.fault = "a validation message";
  return hadal::fuzz::report(target().name, outcome);
}
