// Speed of swiglu at DeepSeek-V3's widths (one expert 2048, dense layers 18432). Bytes = gate and
// up read, y or codes written, once each.
#include "hadal/swiglu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "hadal/grouped_gemm.h"
#include "hadal/reference/swiglu.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t rows, uint32_t n, bool quantize) {
  const std::string name = fmt::format("swiglu rows={} n={} {}", rows, n, quantize ? "q" : "y");
  if (!bench.selected(name)) return;
  SwigluShape s = SwigluShape::packed(rows, n);
  s.quantize = quantize;
  const uint64_t elems = uint64_t{rows} * n;
  const Buffer gate = bench.floats(elems, -8.0f, 8.0f), up = bench.floats(elems, -1.0f, 2.0f);
  const Buffer y = bench.buffer(elems * 4), q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const auto kernel =
      require(Swiglu::create(bench.device(), swiglu_choose(s, bench.device().caps())));
  const SwigluArgs args{gate.address(), up.address(), y.address(), q.address(), scale.address()};
  const auto check = [&] {
    const std::vector<float> actual = bench.read_floats(y, elems);
    const std::vector<float> g = bench.read_floats(gate, elems), u = bench.read_floats(up, elems);
    const std::vector<double> expected = reference::swiglu(s, {g.data(), u.data()});
    for (size_t i = 0; i < actual.size(); ++i) {
      const double bound = test::swiglu_bound(g[i], u[i], expected[i]);
      if (!(std::fabs(actual[i] - expected[i]) <= bound)) return false;
    }
    return true;
  };
  // The check needs y; the timing of the quantised form does without it.
  Recorder first = require(Recorder::create(bench.device()));
  require(kernel.record(first, s, args));
  require(first.end());
  require(bench.device().run(first));
  s.write_y = !quantize;
  bench.time(
      {name, 5.0 * double(elems), double(elems) * (quantize ? 9 : 12)},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); }, check);
}

// Masked groups, of whose m_max rows the first `filled` are there: by a tile list, and all rows.
void masked_case(Bench& bench, uint32_t groups, uint32_t m_max, uint32_t filled, uint32_t n) {
  const std::string name =
      fmt::format("swiglu_tiles groups={} m_max={} filled={} n={} q", groups, m_max, filled, n);
  if (!bench.selected(name)) return;
  constexpr uint32_t kTileM = 16;
  SwigluShape s = SwigluShape::packed(groups * m_max, n);
  s.quantize = true;
  const uint64_t elems = uint64_t{s.rows} * n, used = uint64_t{groups} * filled * n;
  const Buffer gate = bench.floats(elems, -8.0f, 8.0f), up = bench.floats(elems, -1.0f, 2.0f);
  const Buffer y = bench.buffer(elems * 4), q = bench.buffer(uint64_t{s.rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{s.rows} * s.scale_stride * 4);
  const SwigluConfig config = swiglu_choose(s, bench.device().caps());
  std::vector<MoeTile> list;
  for (uint32_t group = 0; group < groups; ++group) {
    for (uint32_t row = 0; row < filled; row += kTileM) {
      list.push_back(
          {group, group * m_max + row, group * m_max + std::min(row + kTileM, filled), 0});
    }
  }
  const std::vector<uint32_t> command = {config.runs(n), uint32_t(list.size()), 1};
  const Buffer tiles = bench.buffer(list.size() * sizeof(MoeTile)), indirect = bench.buffer(12);
  require(bench.device().upload(tiles, 0, std::as_bytes(std::span(list))));
  require(bench.device().upload(indirect, 0, std::as_bytes(std::span(command))));
  const auto kernel = require(SwigluTiles::create(bench.device(), config));
  const SwigluTilesArgs args{
      {gate.address(), up.address(), y.address(), q.address(), scale.address()},
      tiles.address(),
      uint32_t(list.size()),
      &indirect,
      0};
  const auto check = [&] {
    const std::vector<float> actual = bench.read_floats(y, elems);
    const std::vector<float> g = bench.read_floats(gate, elems), u = bench.read_floats(up, elems);
    const std::vector<double> expected = reference::swiglu(s, {g.data(), u.data()});
    for (size_t i = 0; i < actual.size(); ++i) {
      if (i / n % m_max >= filled) continue;
      const double bound = test::swiglu_bound(g[i], u[i], expected[i]);
      if (!(std::fabs(actual[i] - expected[i]) <= bound)) return false;
    }
    return true;
  };
  Recorder first = require(Recorder::create(bench.device()));
  require(kernel.record(first, s, args));
  require(first.end());
  require(bench.device().run(first));
  s.write_y = false;
  bench.time(
      {name, 5.0 * double(used), double(used) * 9},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); }, check);
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("swiglu", options);
  for (uint32_t rows : {1u, 16u, 512u, 4096u}) {
    for (uint32_t n : {256u, 2048u, 7168u, 18432u}) {
      if (options.quick && rows > 16) continue;
      for (bool quantize : {false, true}) bench::run_case(bench, rows, n, quantize);
    }
  }
  if (options.quick) return 0;
  for (uint32_t filled : {4u, 32u, 192u}) bench::masked_case(bench, 32, 192, filled, 2048);
  return 0;
}
