// Speed of swiglu at DeepSeek-V3's widths (one expert 2048, dense layers 18432). Bytes = gate and
// up read, y or codes written, once each.
#include "hadal/swiglu.h"

#include "hadal/reference/swiglu.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t rows, uint32_t n, bool quantize) {
  SwigluShape s = SwigluShape::packed(rows, n);
  s.quantize = quantize;
  require(swiglu_check(s, bench.caps()));
  const uint64_t elems = uint64_t{rows} * n;
  const Buffer gate = bench.floats(elems, -8.0f, 8.0f), up = bench.floats(elems, -1.0f, 2.0f);
  const Buffer y = bench.buffer(elems * 4), q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const SwigluConfig config = swiglu_choose(s, bench.caps());
  const Swiglu kernel = require(Swiglu::create(bench.device(), config));
  const SwigluArgs args{gate.address(), up.address(), y.address(), q.address(), scale.address()};
  const auto check_sample = [&] {
    Check check;
    SwigluShape one = s;
    one.rows = 1;
    for (uint32_t row : sample_of(rows, 16)) {
      const auto actual = bench.read<float>(y, uint64_t{row} * n, n);
      const auto g = bench.read<float>(gate, uint64_t{row} * n, n);
      const auto u = bench.read<float>(up, uint64_t{row} * n, n);
      const std::vector<double> expected = reference::swiglu(one, {g.data(), u.data()});
      for (size_t i = 0; i < n; ++i) {
        check.add(actual[i], expected[i], test::swiglu_bound(g[i], u[i], expected[i]));
      }
    }
    return check;
  };
  // The check needs y; the timing of the quantised form does without it.
  Recorder first = require(Recorder::create(bench.device()));
  require(kernel.record(first, s, args));
  require(first.end());
  require(bench.device().run(first));
  s.write_y = !quantize;
  bench.time(
      {path_of(config.to_string()), 5.0 * double(elems), double(elems) * (quantize ? 9 : 12)},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); }, check_sample);
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("swiglu", argc, argv);
  for (uint32_t rows : {1u, 16u, 512u, 4096u}) {
    for (uint32_t n : {256u, 2048u, 7168u, 18432u}) {
      if (bench.options().quick && rows > 16) continue;
      if (rows == 4096 && n == 18432) continue;  // a gigabyte that shows nothing new
      for (uint32_t fp8 : {0u, 1u}) bench.add({{"rows", rows}, {"n", n}, {"fp8", fp8}});
    }
  }
  return bench.run(
      [&](const bench::Shape& s) { bench::run_case(bench, s["rows"], s["n"], s["fp8"] != 0); });
}
