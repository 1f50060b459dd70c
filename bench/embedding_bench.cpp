// Speed of embedding at DeepSeek-V3's width. Bytes = a table row read and a row of y written per
// token.
#include "hadal/embedding.h"

#include <fmt/format.h>

#include "hadal/reference/embedding.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t tokens, uint32_t hidden) {
  const std::string name = fmt::format("embedding tokens={} hidden={}", tokens, hidden);
  if (!bench.selected(name)) return;
  constexpr uint32_t kVocab = 1024;
  const EmbeddingShape s = EmbeddingShape::packed(tokens, hidden, kVocab);
  const Buffer table = bench.bf16(uint64_t{kVocab} * hidden, -1.0f, 1.0f);
  const Buffer ids = bench.buffer(uint64_t{tokens} * 4),
               y = bench.buffer(uint64_t{tokens} * hidden * 4);
  std::vector<uint32_t> id(tokens);
  for (uint32_t t = 0; t < tokens; ++t) id[t] = t * 389 % kVocab;
  require(bench.device().upload(ids, 0, std::as_bytes(std::span(id))));
  std::vector<uint16_t> rows(uint64_t{kVocab} * hidden);
  require(bench.device().download(table, 0, std::as_writable_bytes(std::span(rows))));
  const auto kernel =
      require(Embedding::create(bench.device(), embedding_choose(s, bench.device().caps())));
  const auto check = [&] {
    const std::vector<float> actual = bench.read_floats(y, uint64_t{tokens} * hidden);
    return actual == reference::embedding(s, id.data(), rows.data());
  };
  bench.time(
      {name, 0, 6.0 * tokens * hidden},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s, {ids.address(), table.address(), y.address()});
      },
      check);
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("embedding", options);
  for (uint32_t tokens : {1u, 16u, 512u}) {
    for (uint32_t hidden : {256u, 7168u}) {
      if (options.quick && tokens > 16) continue;
      bench::run_case(bench, tokens, hidden);
    }
  }
  return 0;
}
