// Speed of moe_gate at DeepSeek-V3's routing. Bytes = logits, bias, indices and weights once each.
#include "hadal/moe_gate.h"

#include <fmt/format.h>

#include <cstring>

#include "hadal/reference/moe_gate.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t tokens, uint32_t experts) {
  MoeGateShape s = MoeGateShape::packed(tokens, experts, 8);
  if (experts == 256) s.n_group = 8, s.topk_group = 4;
  s.scaling = 2.5f;
  const std::string name = fmt::format("moe_gate tokens={} experts={}", tokens, experts);
  if (!bench.selected(name)) return;
  const Buffer logits = bench.floats(uint64_t{tokens} * experts, -4.0f, 4.0f);
  const Buffer bias = bench.floats(experts, -0.1f, 0.1f);
  const Buffer indices = bench.buffer(uint64_t{tokens} * 32);
  const Buffer weights = bench.buffer(uint64_t{tokens} * 32);
  const MoeGate kernel =
      require(MoeGate::create(bench.device(), moe_gate_choose(s, bench.device().caps())));
  bench.time(
      {name, 0.0, 4.0 * tokens * experts + 4.0 * experts + 64.0 * tokens},
      [&](Recorder& recorder) {
        return kernel.record(
            recorder, s, {logits.address(), bias.address(), indices.address(), weights.address()});
      },
      [&] {
        const auto x = bench.read_floats(logits, uint64_t{tokens} * experts);
        const auto b = bench.read_floats(bias, experts);
        const auto expected = reference::moe_gate(s, x.data(), b.data());
        const auto got = bench.read_floats(indices, uint64_t{tokens} * 8);
        uint64_t differ = 0;
        for (size_t i = 0; i < got.size(); ++i) {
          uint32_t index = 0;
          std::memcpy(&index, &got[i], 4);
          differ += index != expected.indices[i];
        }
        return differ <= got.size() / 100;  // the test knows which swaps rounding explains
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("moe_gate", options);
  for (uint32_t tokens : {1u, 16u, 128u, 4096u}) {
    for (uint32_t experts : {16u, 256u, 384u}) {
      if (options.quick && tokens > 128) continue;
      bench::run_case(bench, tokens, experts);
    }
  }
  return 0;
}
