// Speed of mla_cache_read at DeepSeek-V3's and a small model's rows. Bytes = rows read, outputs
// written.
#include "hadal/mla_cache_read.h"

#include "hadal/reference/mla_cache_read.h"
#include "support/bench.h"
#include "support/cache.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t rows, uint32_t rank, uint32_t rope, bool quantize,
              CacheFormat format) {
  const uint32_t pages = ceil_div(rows, 64);
  const MlaCacheReadShape s = MlaCacheReadShape::packed(0, rows, rank, rope, pages * 64, format);
  require(mla_cache_read_check(s, bench.caps()));
  std::vector<uint32_t> pages_values;
  for (uint32_t i = 0; i < pages; ++i) pages_values.push_back(pages - 1 - i);
  const Buffer cache = cache_rows(bench, format, s.cache_rows, rank, rope);
  const Buffer table = bench.upload(pages_values);
  const Buffer latent = bench.buffer(uint64_t{rows} * rank * 4);
  const Buffer k_pe = bench.buffer(uint64_t{rows} * rope * 4);
  const Buffer q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const uint64_t units = uint64_t{s.cache_rows} * s.row_stride;
  const reference::MlaCacheRows expected =
      format == CacheFormat::kFp8
          ? reference::mla_cache_read_fp8(s, bench.read<uint8_t>(cache, 0, units).data(),
                                          pages_values.data())
          : reference::mla_cache_read(s, bench.read_floats(cache, units).data(),
                                      pages_values.data());
  const MlaCacheReadConfig config = mla_cache_read_choose(s, bench.caps());
  const MlaCacheRead kernel = require(MlaCacheRead::create(bench.device(), config));
  MlaCacheReadArgs args{cache.address(), table.address(), latent.address(), k_pe.address(), 0, 0};
  if (quantize) args.latent = 0, args.q = q.address(), args.scale = scale.address();
  bench.time(
      {path_of(config.to_string()), 0.0,
       double(rows) * (double(s.row_stride) * cache_stride_unit(format) + 4.0 * rope +
                       (quantize ? 1.0 : 4.0) * rank)},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] {  // the codes are compared bit by bit in the tests
        Check check;
        if (!quantize) {
          check.exact(bench.read_floats(latent, expected.latent.size()) == expected.latent);
        }
        check.exact(bench.read_floats(k_pe, expected.k_pe.size()) == expected.k_pe);
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("mla_cache_read", argc, argv);
  for (uint32_t rows : {1u, 64u, 1024u}) {
    for (uint32_t fp8 : {0u, 1u}) {
      for (const char* cache : {"f32", "fp8"}) {
        bench.add({{"rows", rows}, {"rank", 64}, {"rope", 16}, {"fp8", fp8}, {"cache", cache}});
        bench.add({{"rows", rows}, {"rank", 512}, {"rope", 64}, {"fp8", fp8}, {"cache", cache}});
      }
    }
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["rows"], s["rank"], s["rope"], s["fp8"] != 0,
                    bench::cache_format(s.word("cache")));
  });
}
