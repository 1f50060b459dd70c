// Speed of moe_gate at DeepSeek-V3's routing. Bytes = logits, bias, indices and weights once each.
#include "hadal/moe_gate.h"

#include <algorithm>

#include "hadal/reference/moe_gate.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t tokens, uint32_t experts) {
  MoeGateShape s = MoeGateShape::packed(tokens, experts, 8);
  if (experts == 256) s.n_group = 8, s.topk_group = 4;
  s.scaling = 2.5f;
  require(moe_gate_check(s, bench.caps()));
  const Buffer logits = bench.floats(uint64_t{tokens} * experts, -4.0f, 4.0f);
  const Buffer bias = bench.floats(experts, -0.1f, 0.1f);
  const Buffer indices = bench.buffer(uint64_t{tokens} * 32);
  const Buffer weights = bench.buffer(uint64_t{tokens} * 32);
  const MoeGateConfig config = moe_gate_choose(s, bench.caps());
  const MoeGate kernel = require(MoeGate::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 0.0, 4.0 * tokens * experts + 4.0 * experts + 64.0 * tokens},
      [&](Recorder& recorder) {
        return kernel.record(
            recorder, s, {logits.address(), bias.address(), indices.address(), weights.address()});
      },
      [&] {
        const auto x = bench.read_floats(logits, uint64_t{tokens} * experts);
        const auto b = bench.read_floats(bias, experts);
        const auto expected = reference::moe_gate(s, x.data(), b.data());
        const auto got = bench.read<uint32_t>(indices, 0, uint64_t{tokens} * 8);
        const auto w = bench.read_floats(weights, uint64_t{tokens} * 8);
        // The test knows which swaps rounding explains; a token with one is not compared.
        Check check;
        uint32_t swapped = 0;
        for (size_t t = 0; t < tokens; ++t) {
          if (!std::equal(&got[t * 8], &got[t * 8] + 8, &expected.indices[t * 8])) {
            ++swapped;
            continue;
          }
          for (size_t i = t * 8; i < t * 8 + 8; ++i) {
            const double ulps = 3.0 + 2.0 * 4.0 + 1.0 + 2.5;  // a sigmoid of |logit| <= 4
            check.add(w[i], expected.weights[i],
                      test::gate_weight_bound(expected.weights[i], ulps, 8, s.scaling));
          }
        }
        check.exact(swapped <= tokens / 100);
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("moe_gate", argc, argv);
  for (uint32_t tokens : {1u, 16u, 128u, 4096u}) {
    for (uint32_t experts : {16u, 256u, 384u}) {
      if (bench.options().quick && tokens > 128) continue;
      bench.add({{"tokens", tokens}, {"experts", experts}});
    }
  }
  return bench.run(
      [&](const bench::Shape& s) { bench::run_case(bench, s["tokens"], s["experts"]); });
}
