// Speed of mla_cache_read at DeepSeek-V3's and a small model's rows. Bytes = rows read, outputs
// written.
#include "hadal/mla_cache_read.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/reference/mla_cache_read.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t rows, uint32_t rank, uint32_t rope, bool quantize) {
  const uint32_t pages = ceil_div(rows, 64);
  const MlaCacheReadShape s = MlaCacheReadShape::packed(0, rows, rank, rope, pages * 64);
  const std::string name = fmt::format("mla_cache_read rows={} rank={} rope={}{}", rows, rank, rope,
                                       quantize ? " fp8" : "");
  if (!bench.selected(name)) return;
  std::vector<uint32_t> pages_values;
  for (uint32_t i = 0; i < pages; ++i) pages_values.push_back(pages - 1 - i);
  const Buffer cache = bench.floats(uint64_t{s.cache_rows} * s.row_stride, -1.0f, 1.0f);
  const Buffer table = bench.buffer(pages * 4);
  require(bench.device().upload(table, 0, std::as_bytes(std::span(pages_values))));
  const Buffer latent = bench.buffer(uint64_t{rows} * rank * 4);
  const Buffer k_pe = bench.buffer(uint64_t{rows} * rope * 4);
  const Buffer q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const std::vector<float> values = bench.read_floats(cache, uint64_t{s.cache_rows} * s.row_stride);
  const auto expected = reference::mla_cache_read(s, values.data(), pages_values.data());
  const MlaCacheRead kernel = require(
      MlaCacheRead::create(bench.device(), mla_cache_read_choose(s, bench.device().caps())));
  MlaCacheReadArgs args{cache.address(), table.address(), latent.address(), k_pe.address(), 0, 0};
  if (quantize) args.latent = 0, args.q = q.address(), args.scale = scale.address();
  bench.time(
      {name, 0.0, double(rows) * (8.0 * rope + (quantize ? 5.0 : 8.0) * rank)},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] {  // the codes are compared bit by bit in the tests
        return (quantize || bench.read_floats(latent, expected.latent.size()) == expected.latent) &&
               bench.read_floats(k_pe, expected.k_pe.size()) == expected.k_pe;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  const bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("mla_cache_read", options);
  for (uint32_t rows : {1u, 64u, 1024u}) {
    for (bool quantize : {false, true}) {
      bench::run_case(bench, rows, 64, 16, quantize);
      bench::run_case(bench, rows, 512, 64, quantize);
    }
  }
  return 0;
}
