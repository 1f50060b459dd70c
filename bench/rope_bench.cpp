// Speed of rope on the queries of DeepSeek-V3 (128 heads of 192, the last 64 rotated) and of a
// small model. Bytes = the rotated channels read and written, and the table's row.
#include "hadal/rope.h"

#include <cmath>

#include "hadal/reference/rope.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

constexpr uint32_t kPositions = 4096;

void run_case(Bench& bench, uint32_t rows, uint32_t heads, uint32_t nope, uint32_t dim) {
  RopeShape s = RopeShape::packed(rows, heads, dim, kPositions);
  s.offset = nope, s.head_stride = nope + dim, s.row_stride = heads * s.head_stride;
  require(rope_check(s, bench.caps()));
  // Amplitude 1: repeated runs rotate the same numbers on and on without growing them.
  std::vector<double> f;
  for (uint32_t i = 0; i < dim / 2; ++i) f.push_back(std::pow(10000.0, -2.0 * i / dim));
  const std::vector<float> table_values = rope_table(f, 1.0, 0, kPositions);
  std::vector<uint32_t> position_values;
  for (uint32_t r = 0; r < rows; ++r) position_values.push_back(r * 37 % kPositions);
  const Buffer x = bench.floats(uint64_t{rows} * s.row_stride, -1.0f, 1.0f);
  const Buffer table = bench.upload(table_values), positions = bench.upload(position_values);
  const std::vector<float> before = bench.read_floats(x, uint64_t{rows} * s.row_stride);
  const auto expected =
      reference::rope(s, {before.data(), position_values.data(), table_values.data()});
  const RopeConfig config = rope_choose(s, bench.caps());
  const Rope kernel = require(Rope::create(bench.device(), config));
  const double channels = double(rows) * heads * dim;
  bench.time(
      {path_of(config.to_string()), 3.0 * channels, 8.0 * channels + 4.0 * rows * dim},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s, {x.address(), positions.address(), table.address()});
      },
      [&] {
        const std::vector<float> after = bench.read_floats(x, uint64_t{rows} * s.row_stride);
        Check check;
        for (size_t i = 0; i < expected.value.size(); ++i) {
          const size_t at = i / dim * s.head_stride + nope + i % dim;
          check.add(after[at], expected.value[i], test::rope_bound(expected.magnitude[i]));
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("rope", argc, argv);
  for (uint32_t rows : {1u, 8u, 128u}) {
    bench.add({{"rows", rows}, {"heads", 8}, {"nope", 32}, {"dim", 16}});
    bench.add({{"rows", rows}, {"heads", 128}, {"nope", 128}, {"dim", 64}});
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["rows"], s["heads"], s["nope"], s["dim"]);
  });
}
