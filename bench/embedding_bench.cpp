// Speed of embedding at DeepSeek-V3's width. Bytes = a table row read and a row of y written per
// token.
#include "hadal/embedding.h"

#include "hadal/reference/embedding.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t tokens, uint32_t hidden) {
  constexpr uint32_t kVocab = 1024;
  const EmbeddingShape s = EmbeddingShape::packed(tokens, hidden, kVocab);
  require(embedding_check(s, bench.caps()));
  std::vector<uint32_t> id(tokens);
  for (uint32_t t = 0; t < tokens; ++t) id[t] = t * 389 % kVocab;
  const Buffer table = bench.bf16(uint64_t{kVocab} * hidden, -1.0f, 1.0f);
  const Buffer ids = bench.upload(id), y = bench.buffer(uint64_t{tokens} * hidden * 4);
  const EmbeddingConfig config = embedding_choose(s, bench.caps());
  const Embedding kernel = require(Embedding::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 0, 6.0 * tokens * hidden},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s, {ids.address(), table.address(), y.address()});
      },
      [&] {
        Check check;
        const auto rows = bench.read<uint16_t>(table, 0, uint64_t{kVocab} * hidden);
        check.exact(bench.read_floats(y, uint64_t{tokens} * hidden) ==
                    reference::embedding(s, id.data(), rows.data()));
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("embedding", argc, argv);
  for (uint32_t tokens : {1u, 16u, 512u, 4096u}) {
    for (uint32_t hidden : {256u, 7168u}) {
      if (bench.options().quick && tokens > 16) continue;
      bench.add({{"tokens", tokens}, {"hidden", hidden}});
    }
  }
  return bench.run(
      [&](const bench::Shape& s) { bench::run_case(bench, s["tokens"], s["hidden"]); });
}
