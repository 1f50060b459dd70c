// Speed of mla_cache_write at DeepSeek-V3's and a small model's sizes. Bytes = y read, rows
// written.
#include "hadal/mla_cache_write.h"

#include <algorithm>
#include <cmath>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_cache_row.h"
#include "hadal/reference/mla_cache_write.h"
#include "hadal/rope.h"
#include "support/bench.h"
#include "support/cache.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

// The rows' channels as float.
std::vector<float> read_rows(Bench& bench, const MlaCacheWriteShape& s, const Buffer& cache) {
  const uint64_t units = uint64_t{s.tokens} * s.row_stride;
  if (s.cache_format == CacheFormat::kF32) return bench.read_floats(cache, units);
  std::vector<float> rows;
  if (s.cache_format == CacheFormat::kBf16) {
    for (uint16_t v : bench.read<uint16_t>(cache, 0, units)) {
      rows.push_back(reference::bf16_decode(v));
    }
    return rows;
  }
  const std::vector<uint8_t> bytes = bench.read<uint8_t>(cache, 0, units);
  for (uint32_t t = 0; t < s.tokens; ++t) {
    const uint8_t* row = &bytes[size_t(t) * s.row_stride];
    for (double v : reference::Fp8CacheRow::read(row, s.rank, s.rope).values()) {
      rows.push_back(float(v));
    }
  }
  return rows;
}

void run_case(Bench& bench, uint32_t tokens, uint32_t rank, uint32_t rope, CacheFormat format) {
  const MlaCacheWriteShape s = MlaCacheWriteShape::packed(tokens, rank, rope, tokens, 256, format);
  require(mla_cache_write_check(s, bench.caps()));
  const size_t width = size_t(rank) + rope;
  std::vector<double> f;
  for (uint32_t i = 0; i < rope / 2; ++i) f.push_back(std::pow(10000.0, -2.0 * i / rope));
  const std::vector<float> table_values = rope_table(f, 1.0, 0, s.max_position);
  std::vector<uint32_t> index;
  for (uint32_t t = 0; t < tokens; ++t) index.push_back(t % s.max_position);
  std::vector<uint32_t> slot_values;
  for (uint32_t t = 0; t < tokens; ++t) slot_values.push_back(t);
  const Buffer y = bench.floats(tokens * width, -1.0f, 1.0f);
  const Buffer weight = bench.floats(rank, 0.5f, 1.5f);
  const Buffer table = bench.upload(table_values);
  const Buffer positions = bench.upload(index), slots = bench.upload(slot_values);
  const uint64_t row_bytes = uint64_t{s.row_stride} * cache_stride_unit(format);
  const Buffer cache = bench.buffer(tokens * row_bytes);
  const std::vector<float> y_values = bench.read_floats(y, tokens * width);
  const std::vector<float> weight_values = bench.read_floats(weight, rank);
  const auto expected = reference::mla_cache_write(
      s, {y_values.data(), weight_values.data(), index.data(), table_values.data()});
  const MlaCacheWriteConfig config = mla_cache_write_choose(s, bench.caps());
  const MlaCacheWrite kernel = require(MlaCacheWrite::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 4.0 * tokens * double(width),
       tokens * (4.0 * double(width) + double(row_bytes))},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {y.address(), weight.address(), positions.address(), table.address(),
                              slots.address(), cache.address()});
      },
      [&] {
        const std::vector<float> rows = read_rows(bench, s, cache);
        Check check;
        for (size_t i = 0; i < rows.size(); ++i) {
          const double value = expected.value[i];
          const bool latent = i % width < rank;
          const double bound =
              latent ? test::rms_norm_bound(rank, value) : test::rope_bound(expected.magnitude[i]);
          if (format == CacheFormat::kF32) {
            check.add(rows[i], value, bound);
          } else if (format == CacheFormat::kBf16 || !latent) {
            check.add(rows[i], value, test::stored_bound(value, bound, test::kUBf16));
          } else {
            double amax = 0.0;
            for (size_t c = i - i % width % 128, n = 0; n < 128 && c % width < rank; ++c, ++n) {
              amax = std::max(amax, std::fabs(expected.value[c]));
            }
            amax += test::rms_norm_bound(rank, amax);
            check.add(rows[i], value, test::fp8_stored_bound(value, bound, amax, false));
          }
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("mla_cache_write", argc, argv);
  for (uint32_t tokens : {1u, 8u, 128u}) {
    for (const char* cache : {"f32", "bf16", "fp8"}) {
      bench.add({{"tokens", tokens}, {"rank", 64}, {"rope", 16}, {"cache", cache}});
      bench.add({{"tokens", tokens}, {"rank", 512}, {"rope", 64}, {"cache", cache}});
    }
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["tokens"], s["rank"], s["rope"], bench::cache_format(s.word("cache")));
  });
}
