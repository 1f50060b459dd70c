// Speed of rope on the queries of DeepSeek-V3 (128 heads of 192, the last 64 rotated) and of a
// small model. Bytes = the rotated channels read and written, and the table's row.
#include "hadal/rope.h"

#include <fmt/format.h>

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
  const std::string name = fmt::format("rope rows={} heads={} dim={}", rows, heads, dim);
  if (!bench.selected(name)) return;
  // Amplitude 1: repeated runs rotate the same numbers on and on without growing them.
  std::vector<double> f;
  for (uint32_t i = 0; i < dim / 2; ++i) f.push_back(std::pow(10000.0, -2.0 * i / dim));
  const std::vector<float> table_values = rope_table(f, 1.0, 0, kPositions);
  std::vector<uint32_t> position_values;
  for (uint32_t r = 0; r < rows; ++r) position_values.push_back(r * 37 % kPositions);
  const Buffer x = bench.floats(uint64_t{rows} * s.row_stride, -1.0f, 1.0f);
  const Buffer table = bench.buffer(table_values.size() * 4);
  const Buffer positions = bench.buffer(rows * 4);
  require(bench.device().upload(table, 0, std::as_bytes(std::span(table_values))));
  require(bench.device().upload(positions, 0, std::as_bytes(std::span(position_values))));
  const std::vector<float> before = bench.read_floats(x, uint64_t{rows} * s.row_stride);
  const auto expected =
      reference::rope(s, {before.data(), position_values.data(), table_values.data()});
  const Rope kernel = require(Rope::create(bench.device(), rope_choose(s, bench.device().caps())));
  const double channels = double(rows) * heads * dim;
  bench.time(
      {name, 3.0 * channels, 8.0 * channels + 4.0 * rows * dim},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s, {x.address(), positions.address(), table.address()});
      },
      [&] {
        const std::vector<float> after = bench.read_floats(x, uint64_t{rows} * s.row_stride);
        for (size_t i = 0; i < expected.value.size(); ++i) {
          const size_t at = i / dim * s.head_stride + nope + i % dim;
          if (!(std::fabs(after[at] - expected.value[i]) <=
                test::rope_bound(expected.magnitude[i])))
            return false;
        }
        return true;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  const bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("rope", options);
  for (uint32_t rows : {1u, 8u, 128u}) {
    bench::run_case(bench, rows, 8, 32, 16);
    bench::run_case(bench, rows, 128, 128, 64);
  }
  return 0;
}
