// Speed of mla_cache_write at DeepSeek-V3's and a small model's sizes. Bytes = y read, rows
// written.
#include "hadal/mla_cache_write.h"

#include <cmath>

#include "hadal/reference/mla_cache_write.h"
#include "hadal/rope.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t tokens, uint32_t rank, uint32_t rope) {
  const MlaCacheWriteShape s = MlaCacheWriteShape::packed(tokens, rank, rope, tokens, 256);
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
  const Buffer cache = bench.buffer(tokens * width * 4);
  const std::vector<float> y_values = bench.read_floats(y, tokens * width);
  const std::vector<float> weight_values = bench.read_floats(weight, rank);
  const auto expected = reference::mla_cache_write(
      s, {y_values.data(), weight_values.data(), index.data(), table_values.data()});
  const MlaCacheWriteConfig config = mla_cache_write_choose(s, bench.caps());
  const MlaCacheWrite kernel = require(MlaCacheWrite::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 4.0 * tokens * double(width), 8.0 * tokens * double(width)},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {y.address(), weight.address(), positions.address(), table.address(),
                              slots.address(), cache.address()});
      },
      [&] {
        const std::vector<float> rows = bench.read_floats(cache, tokens * width);
        Check check;
        for (size_t i = 0; i < rows.size(); ++i) {
          const double bound = i % width < rank ? test::rms_norm_bound(rank, expected.value[i])
                                                : test::rope_bound(expected.magnitude[i]);
          check.add(rows[i], expected.value[i], bound);
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
    bench.add({{"tokens", tokens}, {"rank", 64}, {"rope", 16}});
    bench.add({{"tokens", tokens}, {"rank", 512}, {"rope", 64}});
  }
  return bench.run(
      [&](const bench::Shape& s) { bench::run_case(bench, s["tokens"], s["rank"], s["rope"]); });
}
